"""Counting the records of a CSV stream as fast as it comes, and telling whether it broke off."""

import re

# Every record begins with a quoted action and ends with a quoted cell. Inside a quoted cell a quote that
# follows a line break is doubled, or it ends the cell and a comma or the line's end comes next.
_NEXT_RECORD = re.compile(rb'\r\n"[^",\r]')
_END = b'"\r\n'
_ERROR = re.compile(rb"Code: \d+\. DB::.*", re.DOTALL)
_KEPT = 32 * 1024


class RecordCounter:
    """Counts the records of ClickHouse's CSV, fed in pieces, without taking its cells apart.

    It never counts too many: what is not surely the beginning of a record is not counted.

    Attributes:
        records: Records whose beginning was seen.
    """

    def __init__(self) -> None:
        self.records = 0
        self._quotes = 0
        self._last = b""

    def feed(self, piece: bytes) -> None:
        """Count the records that begin in this piece."""
        if not piece:
            return
        if not self._last and piece.startswith(b'"'):
            self.records = 1
        self.records += len(_NEXT_RECORD.findall(self._last[-3:] + piece))
        self._quotes += piece.count(b'"')
        self._last = piece[-_KEPT:] if len(piece) >= _KEPT else (self._last + piece)[-_KEPT:]

    @property
    def whole(self) -> bool:
        """Whether the stream ends where a record ends, and not at a line break inside a cell."""
        return not self._last or (self._quotes % 2 == 0 and self._last.endswith(_END))

    @property
    def error(self) -> str | None:
        """The first line of the exception that ClickHouse put behind its last record, if it did."""
        found = None if self.whole else _ERROR.search(self._last)
        return found[0].decode("utf-8", "replace").partition("\n")[0].strip() if found else None
