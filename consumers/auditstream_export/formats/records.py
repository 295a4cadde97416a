"""Splits a stream into whole records without parsing their cells, and detects a stream that broke off."""

import re
from dataclasses import dataclass

from auditstream_schemas.errors import ExportError

_ERROR = re.compile(rb"Code: \d+\. DB::.*", re.DOTALL)
_LONGEST = 64 * 1024 * 1024
"""Bytes without a separator after which a stream is not an export: a record has at most a tenth of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The bytes that separate the records of a format.

    Attributes:
        first: First bytes of every record.
        next: Matches the separator before each record except the first, and nothing else.
        end: Last bytes of every record.
        quotes: Whether an odd number of quotes means that a record is incomplete.
    """

    first: bytes
    next: re.Pattern[bytes]
    end: bytes
    quotes: bool


CSV = Layout(
    # Every record begins with a quoted action and ends with a quoted cell. Inside a quoted cell, a quote after a
    # line break is either doubled, or it ends the cell and a comma or a line break follows.
    first=b'"',
    next=re.compile(rb'\r\n(?="[^",\r])'),
    end=b'"\r\n',
    quotes=True,
)
LINES = Layout(
    # A record contains no line break, and the text of an exception does not begin with these bytes.
    first=b'{"action":',
    next=re.compile(rb'\n(?=\{"action":)'),
    end=b"}\n",
    quotes=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole records; ``starts`` has the position in ``data`` of the first byte of each."""

    data: bytes
    starts: list[int]


class Records:
    """Splits a stream, fed in pieces of any length, into chunks of whole records.

    A record starts only where the layout's separator matches, so a broken stream never yields too many records.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rest = b""

    def feed(self, piece: bytes) -> Chunk:
        """Return the complete records; `end` returns the last one. Raises ExportError if the stream has no records."""
        data = self._rest + piece
        starts = [separator.end() for separator in self._layout.next.finditer(data)]
        if not starts:
            if len(data) > _LONGEST:
                raise ExportError(f"no record in {len(data):,} bytes: this is not an export")
            self._rest = data
            return Chunk(data=b"", starts=[])
        last = starts.pop()
        self._rest = data[last:]
        return Chunk(data=data[:last], starts=[0, *starts])

    def end(self) -> Chunk:
        """Return the last record, if the stream had one.

        Raises ExportError if it is incomplete. The message is ClickHouse's exception if the stream ends in one.
        """
        rest, self._rest = self._rest, b""
        if not rest:
            return Chunk(data=b"", starts=[])
        quoted = self._layout.quotes and rest.count(b'"') % 2
        if quoted or not rest.startswith(self._layout.first) or not rest.endswith(self._layout.end):
            exception = _ERROR.search(rest)
            message = exception[0].decode("utf-8", "replace").partition("\n")[0].strip() if exception else None
            raise ExportError(message or "it ended inside a record")
        return Chunk(data=rest, starts=[0])
