"""Two copies of one file, row by row: which rows differ, and in which columns."""

import csv
import io
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from auditstream_export.files.part_file import rows_of
from auditstream_export.formats.output_format import OutputFormat, compression_of
from auditstream_export.query.statements import COLUMNS
from auditstream_schemas.errors import ExportError

SHOWN = 10
"""Rows that are named."""
_AHEAD = 1000
"""Rows that may lack in one copy before the two are found to go on alike."""
_CELL_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """A row that is not the same in both copies.

    Attributes:
        row: Its number in the first copy, from 1; where it lacks, that of the row in whose place it would be.
        kind: ``changed``, ``missing`` (the second copy alone has it) or ``extra`` (the first alone).
        id: The event's id, if the row can be read.
        columns: Of a changed one: by name, the cell in the first copy and in the second.
    """

    row: int
    kind: str
    id: str | None
    columns: Mapping[str, tuple[str, str]]


def compare(one: Path, other: Path, shape: OutputFormat) -> Iterator[RowDifference]:
    """Yield what differs between two copies, in order. Memory does not grow with the files.

    Raises:
        ExportError: A copy cannot be read as such a file.
    """
    if shape.format == "parquet":
        raise ExportError("copies of parquet files cannot be compared row by row")
    left, right = _Rows(one, shape), _Rows(other, shape)
    while (mine := left.peek()) is not None or right.peek() is not None:
        theirs = right.peek()
        if mine == theirs:
            left.take()
            right.take()
            continue
        extra = 1 if theirs is None else left.distance(theirs)
        missing = 1 if mine is None else right.distance(mine)
        if extra is not None:
            for _ in range(extra):
                yield _told(left, "extra", left.peek(), shape)
                left.take()
        elif missing is not None:
            for _ in range(missing):
                yield _told(left, "missing", right.peek(), shape)
                right.take()
        else:
            yield from _differing(left.number, mine or b"", theirs or b"", shape)
            left.take()
            right.take()


class _Rows:
    """The rows of a copy, some of them ahead.

    Attributes:
        number: Of the row that comes next, from 1.
    """

    def __init__(self, path: Path, shape: OutputFormat) -> None:
        self.number = 1
        self._coming = (
            chunk.data[start:end]
            for chunk in rows_of(path, shape, compression_of(path.name), lambda _: None)
            for start, end in itertools.pairwise([*chunk.starts, len(chunk.data)])
        )
        self._ahead: deque[bytes] = deque()

    def peek(self) -> bytes | None:
        """The row that comes next."""
        if not self._ahead:
            self._ahead.extend(itertools.islice(self._coming, 1))
        return self._ahead[0] if self._ahead else None

    def take(self) -> None:
        """Go on to the next."""
        self._ahead.popleft()
        self.number += 1

    def distance(self, row: bytes) -> int | None:
        """After how many rows this one comes; None if it is not among the next."""
        self._ahead.extend(itertools.islice(self._coming, max(0, _AHEAD - len(self._ahead))))
        return next((place for place, each in enumerate(self._ahead) if each == row), None)


def _told(left: _Rows, kind: str, row: bytes | None, shape: OutputFormat) -> RowDifference:
    return RowDifference(row=left.number, kind=kind, id=_cells(row or b"", shape).get("id"), columns={})


def _differing(number: int, mine: bytes, theirs: bytes, shape: OutputFormat) -> Iterator[RowDifference]:
    """One row in the place of the other: changed, or another event altogether."""
    one, other = _cells(mine, shape), _cells(theirs, shape)
    if (
        "id" in one
        and "id" in other
        and one["id"] != other["id"]
        and one.get("occurred_at") != other.get("occurred_at")
    ):
        yield RowDifference(row=number, kind="extra", id=one["id"], columns={})
        yield RowDifference(row=number, kind="missing", id=other["id"], columns={})
        return
    columns = {
        name: (one.get(name, "")[:_CELL_SHOWN], other.get(name, "")[:_CELL_SHOWN])
        for name in dict.fromkeys((*one, *other))
        if one.get(name) != other.get(name)
    }
    yield RowDifference(row=number, kind="changed", id=one.get("id"), columns=columns)


def _cells(row: bytes, shape: OutputFormat) -> dict[str, str]:
    """The cells of a row by column, as far as it can be read."""
    text = row.decode("utf-8", "backslashreplace")
    if shape.format == "ndjson":
        try:
            members = json.loads(text)
        except ValueError:
            return {"line": text}
        return {name: json.dumps(value, ensure_ascii=False) for name, value in members.items()}
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), strict=True), [])
    except csv.Error:
        return {"line": text}
    if len(cells) != len(COLUMNS):
        return {"line": text}
    return dict(zip(COLUMNS, cells, strict=True))
