"""Finding the records of a stream as fast as it comes, and telling whether it broke off."""

import re
from dataclasses import dataclass

from auditstream_schemas.errors import ExportError

_ERROR = re.compile(rb"Code: \d+\. DB::.*", re.DOTALL)
_LONGEST = 64 * 1024 * 1024
"""A record is a tenth of it at most: what is longer is no stream of records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How records of a format are told apart, without taking their cells apart.

    Attributes:
        first: What every record begins with.
        next: Matches from the end of a record to the first byte of the next, wherever one begins and nowhere else.
        end: What every record ends with.
        quotes: Whether a quote that is not closed means that a record is not whole.
    """

    first: bytes
    next: re.Pattern[bytes]
    end: bytes
    quotes: bool


CSV = Layout(
    # Every record begins with a quoted action and ends with a quoted cell. Inside a quoted cell a quote that
    # follows a line break is doubled, or it ends the cell and a comma or the line's end comes next.
    first=b'"',
    next=re.compile(rb'\r\n(?="[^",\r])'),
    end=b'"\r\n',
    quotes=True,
)
LINES = Layout(
    # Inside a record there is no line break, and an exception does not begin so.
    first=b'{"action":',
    next=re.compile(rb'\n(?=\{"action":)'),
    end=b"}\n",
    quotes=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole records.

    Attributes:
        data: Their bytes.
        starts: Where each begins.
    """

    data: bytes
    starts: list[int]


class Records:
    """Divides a stream, fed in pieces of any length, into chunks of whole records.

    It never finds too many: what is not surely the beginning of a record is not taken for one.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rest = b""

    def feed(self, piece: bytes) -> Chunk:
        """The records that are surely whole by now; the last one never is.

        Raises:
            ExportError: This is no stream of records.
        """
        data = self._rest + piece
        starts = [found.end() for found in self._layout.next.finditer(data)]
        if not starts:
            if len(data) > _LONGEST:
                raise ExportError(f"no record in {len(data):,} bytes: this is not an export")
            self._rest = data
            return Chunk(data=b"", starts=[])
        last = starts.pop()
        self._rest = data[last:]
        return Chunk(data=data[:last], starts=[0, *starts])

    def end(self) -> Chunk:
        """The last record, if there is one and it is whole.

        Raises:
            ExportError: It is not whole; the message tells ClickHouse's exception if there is one in its place.
        """
        rest, self._rest = self._rest, b""
        if not rest:
            return Chunk(data=b"", starts=[])
        quoted = self._layout.quotes and rest.count(b'"') % 2
        if quoted or not rest.startswith(self._layout.first) or not rest.endswith(self._layout.end):
            found = _ERROR.search(rest)
            told = found[0].decode("utf-8", "replace").partition("\n")[0].strip() if found else None
            raise ExportError(told or "it ended inside a record")
        return Chunk(data=rest, starts=[0])
