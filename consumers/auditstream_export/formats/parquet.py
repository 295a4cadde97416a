"""The number of rows of a Parquet file, read from its footer."""

from collections.abc import Iterator
from pathlib import Path

from auditstream_schemas.errors import ExportError

_MAGIC = b"PAR1"
_ROWS_FIELD = 3


def stored_rows(path: Path) -> int:
    """The number of rows according to the footer. Raises ExportError if the file has no complete footer."""
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
        raise ExportError("ClickHouse's answer is not a valid Parquet file; nothing was exported, try again") from error


def _rows(footer: bytes) -> int:
    """The third field of the footer's FileMetaData, in Thrift's compact protocol."""
    reader = _CompactReader(footer)
    for field, kind in reader.fields():
        if field == _ROWS_FIELD:
            return reader.number()
        reader.skip(kind)
    raise IndexError


class _CompactReader:
    """Reads numbers of Thrift's compact protocol, and skips values of every other type."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and type of each field of a struct; the caller reads or skips its value."""
        field = 0
        while (head := self._byte()) & 0x0F:
            field = field + (head >> 4) if head >> 4 else self.number()
            yield field, head & 0x0F

    def number(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def skip(self, kind: int) -> None:
        match kind:
            case 1 | 2:  # a boolean, whose value is its type
                pass
            case 3:
                self._position += 1
            case 4 | 5 | 6:
                self._varint()
            case 7:
                self._position += 8
            case 8:
                length = self._varint()
                self._position += length
            case 9 | 10:
                head = self._byte()
                for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                    self.skip(3 if head & 0x0F in {1, 2} else head & 0x0F)
            case 12:
                for _, inner in self.fields():
                    self.skip(inner)
            case _:
                raise IndexError

    def _byte(self) -> int:
        self._position += 1
        return self._data[self._position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift
