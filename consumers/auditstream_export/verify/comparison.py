"""Compares two copies of one file row by row, and reports the rows and columns that differ."""

import csv
import io
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from auditstream_export.files import rows_of
from auditstream_export.formats import OutputFormat, compression_of
from auditstream_export.query.statements import COLUMNS
from auditstream_schemas.errors import ExportError

SHOWN_ROWS = 10
"""Differing rows that a command prints."""
_LOOKAHEAD_ROWS = 1000
"""Rows that may be missing from one copy before the two are aligned again."""
_CELL_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """A row that is not the same in both copies.

    Attributes:
        row: Its number in the first copy, from 1; for a missing row, the number of the row before which it belongs.
        kind: ``changed``, ``missing`` (only in the second copy) or ``extra`` (only in the first copy).
        id: The event's id, if the row can be parsed.
        columns: For a changed row: column name to the cells in the first and in the second copy.
    """

    row: int
    kind: str
    id: str | None
    columns: Mapping[str, tuple[str, str]]


def compare(one: Path, other: Path, output_format: OutputFormat) -> Iterator[RowDifference]:
    """Yield the differences between two copies, in order. Memory does not grow with the files.

    Raises:
        ExportError: A copy cannot be read in this format.
    """
    if output_format.format == "parquet":
        raise ExportError("copies of parquet files cannot be compared row by row")
    left, right = _Rows(one, output_format), _Rows(other, output_format)
    while (left_row := left.peek()) is not None or right.peek() is not None:
        right_row = right.peek()
        if left_row == right_row:
            left.skip()
            right.skip()
            continue
        extra = 1 if right_row is None else left.distance(right_row)
        missing = 1 if left_row is None else right.distance(left_row)
        if extra is not None:
            for _ in range(extra):
                yield _unpaired(left.number, "extra", _cells(left.skip(), output_format))
        elif missing is not None:
            for _ in range(missing):
                yield _unpaired(left.number, "missing", _cells(right.skip(), output_format))
        else:
            yield from _differing(left.number, _cells(left.skip(), output_format), _cells(right.skip(), output_format))


class _Rows:
    """The rows of a copy, with a bounded lookahead; ``number`` is that of the next row, from 1."""

    def __init__(self, path: Path, output_format: OutputFormat) -> None:
        self.number = 1
        self._unread = (
            chunk.data[start:end]
            for chunk in rows_of(path, output_format, compression_of(path.name))
            for start, end in itertools.pairwise([*chunk.starts, len(chunk.data)])
        )
        self._lookahead: deque[bytes] = deque()

    def peek(self) -> bytes | None:
        """The next row; None at the end."""
        if not self._lookahead:
            self._lookahead.extend(itertools.islice(self._unread, 1))
        return self._lookahead[0] if self._lookahead else None

    def skip(self) -> bytes:
        """Return the next row, and go to the one after it."""
        self.number += 1
        return self._lookahead.popleft()

    def distance(self, row: bytes) -> int | None:
        """Number of rows before this row; None if it is not in the lookahead."""
        self._lookahead.extend(itertools.islice(self._unread, max(0, _LOOKAHEAD_ROWS - len(self._lookahead))))
        return next((number for number, other in enumerate(self._lookahead) if other == row), None)


def _unpaired(number: int, kind: str, cells: Mapping[str, str]) -> RowDifference:
    return RowDifference(row=number, kind=kind, id=cells.get("id"), columns={})


def _differing(number: int, one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[RowDifference]:
    """Compare two rows at the same position: one changed event, or two different events."""
    has_ids = "id" in one and "id" in other
    if has_ids and one["id"] != other["id"] and one.get("occurred_at") != other.get("occurred_at"):
        yield _unpaired(number, "extra", one)
        yield _unpaired(number, "missing", other)
        return
    columns = {
        name: (one.get(name, "")[:_CELL_CHARACTERS], other.get(name, "")[:_CELL_CHARACTERS])
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    }
    yield RowDifference(row=number, kind="changed", id=one.get("id"), columns=columns)


def _cells(row: bytes, output_format: OutputFormat) -> dict[str, str]:
    """The cells of a row by column; the whole line under the name ``line`` if it cannot be parsed."""
    text = row.decode("utf-8", "backslashreplace")
    try:
        if output_format.format == "ndjson":
            return {name: json.dumps(value, ensure_ascii=False) for name, value in json.loads(text).items()}
        cells = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
        return dict(zip(COLUMNS, cells, strict=True))
    except (ValueError, csv.Error):
        return {"line": text}
