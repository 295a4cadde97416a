"""How many rows a Parquet file says that it has, read from its footer."""

from pathlib import Path

from auditstream_schemas.errors import ExportError

_MAGIC = b"PAR1"
_ROWS_FIELD = 3


def stored_rows(path: Path) -> int:
    """The number of rows of a file that ends as it should.

    Raises:
        ExportError: It does not.
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        length = stream.seek(0, 2)
        stream.seek(max(0, length - 8))
        tail = stream.read(8)
        if len(tail) < 8 or not tail.endswith(_MAGIC):
            raise ExportError("ClickHouse's answer broke off inside the file; nothing was exported, try again")
        size = int.from_bytes(tail[:4], "little")
        stream.seek(max(0, length - 8 - size))
        footer = stream.read(size)
    try:
        return _rows(footer)
    except IndexError as error:
        raise ExportError("ClickHouse's answer is no sound Parquet file; nothing was exported") from error


def _rows(footer: bytes) -> int:
    """The third field of FileMetaData, in Thrift's compact protocol."""
    reader = _Compact(footer)
    field = 0
    while kind := (head := reader.byte()) & 0x0F:
        field = field + (head >> 4) if head >> 4 else reader.number()
        if field == _ROWS_FIELD:
            return reader.number()
        reader.skip(kind)
    raise IndexError


class _Compact:
    """Just enough of the compact protocol to pass over what is not wanted."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        value = shift = 0
        while (byte := self.byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def number(self) -> int:
        found = self.varint()
        return (found >> 1) ^ -(found & 1)

    def skip(self, kind: int) -> None:
        if kind in {1, 2}:
            return
        if kind in {4, 5, 6}:
            self.varint()
        elif kind == 3:
            self._at += 1
        elif kind == 7:
            self._at += 8
        elif kind == 8:
            length = self.varint()
            self._at += length
        elif kind in {9, 10}:
            head = self.byte()
            for _ in range(self.varint() if head >> 4 == 15 else head >> 4):
                self.skip(3 if head & 0x0F in {1, 2} else head & 0x0F)
        elif kind == 12:
            while inner := (head := self.byte()) & 0x0F:
                if not head >> 4:
                    self.number()
                self.skip(inner)
        else:
            raise IndexError
