"""An export that is not whole yet: its part files, and a journal of how far it came.

The journal is a file of JSON lines beside the parts. Its first line says what is being exported, each further one
that a slice is done and what the parts were then, with their hashes. It is locked while an export writes it, so
that a second one to the same name is refused, and what a crash left can be told from what another process is about.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from auditstream_export.files.background_sync import BackgroundSync
from auditstream_export.files.part_file import FileSummary, Kept, PartFile, part_path
from auditstream_export.formats.output_format import OutputFormat, numbered
from auditstream_export.formats.records import Chunk
from auditstream_schemas.errors import ExportError

_SYNC_BYTES = 64 * 1024 * 1024

_logger = logging.getLogger("auditstream.export")


def journal_path(path: Path) -> Path:
    """Where the journal of an export to this name lies."""
    return path.with_name(f"{path.name}.part.journal")


def is_resumable(path: Path) -> bool:
    """Whether an export to this name was left unfinished, and nobody is writing it."""
    try:
        with journal_path(path).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False


class Draft:
    """The part files of one export.

    Attributes:
        path: Where the file is to lie, or where its numbered files are to.
        plan: What is being exported, as `begin` was told before a crash; None for a new export.
        slices_done: How many slices are in the parts for good, on the disk.
    """

    def __init__(self, path: Path, journal: IO[bytes]) -> None:
        self.path = path
        self.plan: dict[str, Any] | None = None
        self.slices_done = 0
        self._slices = 0
        self._journal = journal
        self._is_rejected = False
        self._kept: list[Kept] = []
        self._shape = OutputFormat()
        self._range_size = 1
        self._closed: list[FileSummary] = []
        self._open: PartFile | None = None
        self._rows = 0
        self._made: list[Path] = []
        self._disk = BackgroundSync()
        self._unsynced = 0
        self._recall()
        self._is_resumed = self.plan is not None

    def begin(self, plan: dict[str, Any], shape: OutputFormat, *, range_size: int) -> None:
        """Open the parts, or take them up where the journal says.

        Args:
            plan: What is being exported, kept in the journal.
            shape: What the files look like.
            range_size: Rows of a run that gets a checksum.

        Raises:
            OSError: They cannot be read or written.
            ExportError: What lies there is not what was written.
        """
        self._shape, self._range_size = shape, range_size
        if self.plan is None:
            self.plan = plan
            self._note(plan)
        for number, kept in enumerate(self._kept):
            if number:
                self._close_file()
            self._open_file(kept)
        if self._open is None:
            self._open_file()

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return self._rows + (self._open.rows if self._open else 0)

    def write(self, chunk: Chunk) -> None:
        """Write whole rows, to as many files as they fill."""
        most = self._shape.split_rows
        while most is not None and chunk.starts and self._part.rows + len(chunk.starts) > most:
            room = most - self._part.rows
            edge = chunk.starts[room]
            self._part.write(Chunk(data=chunk.data[:edge], starts=chunk.starts[:room]))
            self._close_file()
            self._open_file()
            chunk = Chunk(data=chunk.data[edge:], starts=[start - edge for start in chunk.starts[room:]])
        self._part.write(chunk)
        self._written(len(chunk.data))

    def write_bytes(self, data: bytes) -> None:
        """Write a piece of a file that is no sequence of rows."""
        self._part.write_bytes(data)
        self._written(len(data))

    def checkpoint(self) -> None:
        """Note that one more slice is done, as soon as it is on the disk."""
        part = self._part
        parts = [*(Kept(bytes=each.bytes, sha256=each.sha256) for each in self._closed), part.end_member()]
        self._slices += 1
        done = self._slices

        def note() -> None:
            part.sync()
            self._note({"slices_done": done, "parts": [asdict(each) for each in parts]})
            self.slices_done = done

        self._disk.submit(note)
        self._unsynced = 0

    def finish(self, rows: int | None = None) -> list[FileSummary]:
        """Close the last file and return all of them. Blocks until everything is on the disk.

        Args:
            rows: How many there are, where they were not written as rows.
        """
        self._close_file(rows)
        self._disk.wait()
        return list(self._closed)

    def part_of(self, file: FileSummary) -> Path:
        """Where a file lies until it is whole."""
        return part_path(self.path.with_name(file.name))

    def add(self, name: str, content: bytes) -> None:
        """Put a file beside the parts that is published with them, and before them.

        Raises:
            OSError: It cannot be written.
        """
        part = part_path(self.path.with_name(name))
        # Of an earlier attempt to publish.
        part.unlink(missing_ok=True)
        self._made.append(part)
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def publish(self, place: Callable[[Path, str], object]) -> None:
        """Give every file its name, and forget the journal.

        The manifest goes first. A crash in between leaves a manifest that names a file that is not there, or (when
        overwriting) one whose hash the file does not have: either tells. The other way round a file could lie
        there that nothing vouches for.
        """
        files = [self.part_of(each) for each in self._closed]
        for part in [*(each for each in self._made if each not in files), *files]:
            place(part, part.name.removesuffix(".part"))
        journal_path(self.path).unlink()
        self._disk.close()

    @property
    def is_kept(self) -> bool:
        """Whether it can be taken up again if it breaks off now."""
        return self.slices_done > 0 and not self._is_rejected

    def reject(self) -> None:
        """Take back that what is done may be resumed: it is not wanted."""
        self._is_rejected = True

    def abandon(self) -> None:
        """Close the files; remove them unless they can be taken up again."""
        self._disk.close()
        if self._open is not None:
            self._open.abandon()
        if not self.is_kept:
            for part in self._made:
                part.unlink(missing_ok=True)
            journal_path(self.path).unlink(missing_ok=True)

    @property
    def _part(self) -> PartFile:
        if self._open is None:
            raise ValueError("no file is open")
        return self._open

    def _name(self, number: int) -> str:
        return self.path.name if self._shape.split_rows is None else numbered(self.path.name, number + 1)

    def _open_file(self, kept: Kept | None = None) -> None:
        name = self._name(len(self._closed))
        part = part_path(self.path.with_name(name))
        if self._is_resumed and not kept:
            # Begun after the last checkpoint.
            part.unlink(missing_ok=True)
        self._open = PartFile(
            self.path.parent,
            name,
            self._shape,
            first_row=self._rows + 1,
            range_size=self._range_size,
            kept=kept,
        )
        self._made.append(part)

    def _close_file(self, rows: int | None = None) -> None:
        part = self._part
        part.end_member()
        self._disk.submit(part.close)
        self._closed.append(part.summary(rows))
        self._rows += self._closed[-1].rows
        self._open = None

    def _written(self, length: int) -> None:
        self._unsynced += length
        if self._unsynced > _SYNC_BYTES and self._disk.is_idle:
            # So that the disk works all the time, and the last file does not wait for all of it.
            part = self._part
            self._disk.submit(part.sync)
            self._unsynced = 0

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _recall(self) -> None:
        """Read the journal; a last line that broke off was not written."""
        self._journal.seek(0)
        text = self._journal.read()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        self._journal.truncate(sum(len(line) + 1 for line in lines))
        self._journal.seek(0, os.SEEK_END)
        if lines:
            self.plan = json.loads(lines[0])
        if len(lines) > 1:
            last = json.loads(lines[-1])
            self.slices_done = self._slices = last["slices_done"]
            self._kept = [Kept(**each) for each in last["parts"]]


@contextmanager
def drafting(path: Path, *, overwrite: bool, resume: bool) -> Iterator[Draft]:
    """Open the draft of an export to this name.

    Whatever ends the block by an exception removes it, unless a slice is done: then it stays, to be resumed.

    Raises:
        ExportError: Another export is writing it, or one was left unfinished and is neither to be resumed nor
            overwritten, or there is none to be resumed.
        OSError: The disk refuses.
    """
    journal = journal_path(path)
    was_there = journal.exists()
    if resume and not was_there:
        raise ExportError(f"there is no unfinished export to {path}: leave out --resume")
    with journal.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"{path} is being written by another export") from error
        if was_there and not resume:
            if not overwrite:
                raise ExportError(
                    f"an export to {path} was left unfinished: --resume goes on with it, --force begins anew"
                )
            _clear(path, stream)
        draft = Draft(path, stream)
        try:
            yield draft
        except BaseException:
            with suppress(OSError):
                draft.abandon()
            if draft.is_kept:
                _logger.warning("what is done of %s is kept: --resume goes on with it", path)
            raise


def _clear(path: Path, journal: IO[bytes]) -> None:
    """Remove what an unfinished export left."""
    stem, dot, suffixes = path.name.partition(".")
    for part in [part_path(path), *path.parent.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9]{dot}{suffixes}.part")]:
        part.unlink(missing_ok=True)
    journal.truncate(0)
