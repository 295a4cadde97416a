"""Writes the files of one export as part files, and a journal from which it can be resumed.

The journal is a file of JSON lines beside the part files. Its first line is the plan of the export. One line
follows for each complete slice, with lengths and hashes of the part files at that moment. An export locks its journal,
so that a second export to the same name is refused.
"""

import fcntl
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from auditstream_export.files.part_file import Checkpoint, FileSummary, PartFile, part_path
from auditstream_export.formats import Chunk, OutputFormat, numbered_name
from auditstream_schemas.errors import ExportError

_SYNC_BYTES = 64 * 1024 * 1024

_logger = logging.getLogger("auditstream.export")


def journal_path(path: Path) -> Path:
    """Path of the journal of an export to this name."""
    return path.with_name(f"{path.name}.part.journal")


def is_resumable(path: Path) -> bool:
    """Whether there is an unfinished export to this name that no process is writing."""
    try:
        with journal_path(path).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False


class ExportWriter:
    """Writes the part files of one export; opened by `open_writer`.

    Attributes:
        path: Path of the final file; numbered files lie beside it.
        plan: The plan in the journal of an export that is resumed; None for a new export.
        slices_done: Number of slices that are synced to the disk.
        is_rejected: Set it if the content is wrong: `abandon` then deletes it although slices are complete.
    """

    def __init__(self, path: Path, journal: IO[bytes]) -> None:
        self.path = path
        self.plan: dict[str, Any] | None = None
        self.slices_done = 0
        self._slices = 0
        self._journal = journal
        self.is_rejected = False
        self._checkpoints: list[Checkpoint] = []
        self._output_format = OutputFormat()
        self._range_size = 1
        self._closed: list[FileSummary] = []
        self._open: PartFile | None = None
        self._rows = 0
        self._part_paths: list[Path] = []
        self._disk = _BackgroundSync()
        self._unsynced = 0
        self._read_journal()
        self._is_resumed = self.plan is not None

    def begin(self, plan: dict[str, Any], output_format: OutputFormat, *, range_size: int) -> None:
        """Write the plan and create the first part file, or open the part files at the last checkpoint.

        Each run of ``range_size`` rows gets a checksum. Raises ExportError if a part file was changed meanwhile.
        """
        self._output_format, self._range_size = output_format, range_size
        if self.plan is None:
            self.plan = plan
            self._append_to_journal(plan)
        for number, checkpoint in enumerate(self._checkpoints):
            if number:
                self._close_file()
            self._open_file(checkpoint)
        if self._open is None:
            self._open_file()

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return self._rows + (self._open.rows if self._open else 0)

    def write(self, chunk: Chunk) -> None:
        """Write whole rows, and begin another file whenever one has ``split_rows`` rows."""
        limit = self._output_format.split_rows
        while limit is not None and chunk.starts and self._part.rows + len(chunk.starts) > limit:
            room = limit - self._part.rows
            edge = chunk.starts[room]
            self._part.write(Chunk(data=chunk.data[:edge], starts=chunk.starts[:room]))
            self._close_file()
            self._open_file()
            chunk = Chunk(data=chunk.data[edge:], starts=[start - edge for start in chunk.starts[room:]])
        self._part.write(chunk)
        self._sync_when_due(len(chunk.data))

    def write_bytes(self, data: bytes) -> None:
        """Write a piece of a file that is not a sequence of rows."""
        self._part.write_bytes(data)
        self._sync_when_due(len(data))

    def checkpoint(self) -> None:
        """End a slice: sync it in the background, then add a line to the journal."""
        part = self._part
        parts = [*({"bytes": file.bytes, "sha256": file.sha256} for file in self._closed), asdict(part.end_member())]
        self._slices += 1
        slices = self._slices

        def sync() -> None:
            part.sync()
            self._append_to_journal({"slices_done": slices, "parts": parts})
            self.slices_done = slices

        self._disk.submit(sync)
        self._unsynced = 0

    def finish(self, rows: int | None = None) -> list[FileSummary]:
        """Close the last file and return all files; ``rows`` is given if `write_bytes` was used. Blocks on the disk."""
        if rows is not None:
            self._part.rows = rows
        self._close_file()
        self._disk.wait()
        return list(self._closed)

    def part_of(self, file: FileSummary) -> Path:
        """Path of a file's part file."""
        return part_path(self.path.with_name(file.name))

    def add(self, name: str, content: bytes) -> None:
        """Write a file such as the manifest, which is published before the files with rows."""
        part = part_path(self.path.with_name(name))
        # An interrupted `publish` may have left one.
        part.unlink(missing_ok=True)
        self._part_paths.append(part)
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def publish(self, publish: Callable[[Path, str], object]) -> None:
        """Pass every part file and its final name to a function, and delete the journal.

        The manifest goes first. After a crash in between, the manifest names a missing file or a file with another
        hash, which `verify_export` reports. In the other order a file could exist without a manifest.
        """
        files = [self.part_of(file) for file in self._closed]
        for part in [*(path for path in self._part_paths if path not in files), *files]:
            publish(part, part.name.removesuffix(".part"))
        journal_path(self.path).unlink()
        self._disk.close()

    @property
    def is_resumable(self) -> bool:
        """Whether the export could be resumed if it broke off now."""
        return self.slices_done > 0 and not self.is_rejected

    def abandon(self) -> None:
        """Close the part files, and delete them unless the export can be resumed."""
        self._disk.close()
        if self._open is not None:
            self._open.close(sync=False)
        if not self.is_resumable:
            for part in self._part_paths:
                part.unlink(missing_ok=True)
            journal_path(self.path).unlink(missing_ok=True)

    @property
    def _part(self) -> PartFile:
        if self._open is None:
            raise ValueError("no file is open")
        return self._open

    def _open_file(self, checkpoint: Checkpoint | None = None) -> None:
        path = self.path
        if self._output_format.split_rows is not None:
            path = path.with_name(numbered_name(path.name, len(self._closed) + 1))
        if self._is_resumed and not checkpoint:
            # The file was begun after the last checkpoint.
            part_path(path).unlink(missing_ok=True)
        self._open = PartFile(
            path, self._output_format, first_row=self._rows + 1, range_size=self._range_size, checkpoint=checkpoint
        )
        self._part_paths.append(self._open.path)

    def _close_file(self) -> None:
        part = self._part
        part.end_member()
        self._disk.submit(part.close)
        self._closed.append(part.summary())
        self._rows += self._closed[-1].rows
        self._open = None

    def _sync_when_due(self, length: int) -> None:
        """Sync in between, so that the disk is always busy and the end of the export waits for little."""
        self._unsynced += length
        if self._unsynced > _SYNC_BYTES and self._disk.is_idle:
            self._disk.submit(self._part.sync)
            self._unsynced = 0

    def _append_to_journal(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _read_journal(self) -> None:
        """Read plan and last checkpoint, and cut off an incomplete last line."""
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
            self._checkpoints = [Checkpoint(**part) for part in last["parts"]]


class _BackgroundSync:
    """Runs blocking disk calls in a thread, in order. A later `submit` or `wait` raises the error of a call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "export-sync")
        self._pending: deque[Future[object]] = deque()

    @property
    def is_idle(self) -> bool:
        return all(call.done() for call in self._pending)

    def submit(self, action: Callable[[], object]) -> None:
        """Run a call after all pending ones."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(action))

    def wait(self) -> None:
        """Block until every call has ended."""
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Block until every call has ended or failed, and end the thread."""
        self._thread.shutdown()
        self._pending.clear()


@contextmanager
def open_writer(path: Path, *, overwrite: bool, resume: bool) -> Iterator[ExportWriter]:
    """Open the writer of an export to this name, new or resumed.

    After an exception in the block, the part files stay if a slice is complete; otherwise they are deleted.

    Raises:
        ExportError: The options do not fit the unfinished export, or another process is writing to this name.
    """
    journal = journal_path(path)
    is_unfinished = journal.exists()
    if resume and not is_unfinished:
        raise ExportError(f"there is no unfinished export to {path}: leave out --resume")
    with journal.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"{path} is being written by another export") from error
        if is_unfinished and not resume:
            if not overwrite:
                raise ExportError(f"the export to {path} is unfinished: --resume goes on with it, --force begins anew")
            stem, dot, suffixes = path.name.partition(".")
            numbered = path.parent.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9]{dot}{suffixes}.part")
            for part in [part_path(path), *numbered]:
                part.unlink(missing_ok=True)
            stream.truncate(0)
        writer = ExportWriter(path, stream)
        try:
            yield writer
        except BaseException:
            with suppress(OSError):
                writer.abandon()
            if writer.is_resumable:
                _logger.warning("the completed part of %s is kept: --resume goes on with it", path)
            raise
