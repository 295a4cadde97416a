"""Events from NDJSON files: one event as a JSON object per line."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO, TextIO

from uuid_utils.compat import uuid7

from auditstream_producer.emitter import DeliveryFailure, EventEmitter
from auditstream_schemas.errors import CatalogError, FieldError, InvalidEventError, OperationError, QueueFullError
from auditstream_schemas.event import AuditEvent

MAX_LINE_BYTES = 8_388_608
"""Longest line: room for an event of the largest size with every character escaped."""

_BOM = b"\xef\xbb\xbf"
_SHOWN_BYTES = 1000
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NdjsonLine:
    """One line of a file.

    Attributes:
        number: From 1.
        content: Its bytes without the line break; only the first 1000 if it is too long.
        size: Its length in the file in bytes, line break included.
        too_long: Whether it is longer than `MAX_LINE_BYTES`.
    """

    number: int
    content: bytes
    size: int
    too_long: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One line without a delivered event.

    Attributes:
        line: Its number, from 1.
        reason: Why, in a sentence.
        errors: The fields at fault, if the line was refused for them.
        content: The bytes of a refused line. For an undelivered event its JSON, with the id that it was given, so
            that emitting it again makes no second event.
        event_id: The id of an undelivered event.
    """

    line: int
    reason: str
    errors: tuple[FieldError, ...] = ()
    content: bytes
    event_id: str | None = None

    def to_json(self) -> str:
        """Write it as one line of a rejects file, without the line break.

        Content that is not UTF-8 is written twice: readable as ``text``, exact as ``base64``.
        """
        errors = [asdict(error) for error in self.errors]
        row: dict[str, object] = {"line": self.line, "reason": self.reason, "errors": errors}
        if self.event_id is not None:
            row["id"] = self.event_id
        row["text"] = text = self.content.decode("utf-8", "replace")
        if text.encode() != self.content:
            row["base64"] = base64.b64encode(self.content).decode("ascii")
        return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


class Rejects:
    """Counts rejected lines and writes them to a file. Safe to share between threads.

    Attributes:
        refused: Number of lines whose event was not accepted.
        undelivered: Number of events that were accepted and not delivered.
        first: The first few rejected lines.
    """

    def __init__(self, file: TextIO | None, *, keep: int = 5) -> None:
        """Write each rejected line to ``file``, if there is one, and keep the first ``keep`` in memory."""
        self._file = file
        self._keep = keep
        self._lock = threading.Lock()
        self.refused = 0
        self.undelivered = 0
        self.first: list[Rejected] = []

    def refuse(self, rejected: Rejected) -> None:
        """Add a line whose event was not accepted. Raises `OperationError` if the file cannot be written."""
        with self._lock:
            self.refused += 1
            self._add(rejected)

    def on_error(self, failure: DeliveryFailure) -> None:
        """Add an event that was not delivered: the producer's ``on_error``."""
        line = failure.tag if isinstance(failure.tag, int) else 0
        content = failure.event.to_json().encode()
        rejected = Rejected(line=line, reason=failure.reason, content=content, event_id=str(failure.event_id))
        with self._lock:
            self.undelivered += 1
            self._add(rejected)

    def _add(self, rejected: Rejected) -> None:
        if len(self.first) < self._keep:
            self.first.append(rejected)
        if self._file is not None:
            try:
                self._file.write(rejected.to_json() + "\n")
            except OSError as error:
                text = f"cannot write line {rejected.line} to the rejects file: {error.strerror}"
                raise OperationError(text) from error


def read_lines(stream: BinaryIO) -> Iterator[NdjsonLine]:
    """Read lines one at a time. Of a line that is too long, only the beginning stays in memory."""
    for number, chunk in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), start=1):
        content, size = chunk, len(chunk)
        too_long = size > MAX_LINE_BYTES and not content.endswith(b"\n")
        if too_long:
            content = content[:_SHOWN_BYTES]
            while rest := stream.readline(MAX_LINE_BYTES):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
        if number == 1:
            content = content.removeprefix(_BOM)
        yield NdjsonLine(number=number, content=content.rstrip(b"\r\n"), size=size, too_long=too_long)


class NdjsonEmitter:
    """Emits the events of lines, and waits while the local queue is full.

    Attributes:
        lines: Number of lines that were emitted or refused; blank ones do not count.
    """

    def __init__(self, producer: EventEmitter, rejects: Rejects, *, patience: float) -> None:
        """Wait at most ``patience`` seconds while no event is delivered or failed.

        The producer's ``on_error`` should be `Rejects.on_error`.
        """
        self._producer = producer
        self._rejects = rejects
        self._patience = patience
        self.lines = 0

    def emit_line(self, line: NdjsonLine, *, keep_waiting: Callable[[], bool]) -> bool:
        """Emit the event of one line; a blank line is skipped. Blocks while the queue is full.

        A missing id (UUIDv7), version (1) or occurred_at (now) is filled in.

        Returns:
            False if the event was neither accepted nor refused, because the wait ended: ``patience`` seconds passed,
            or ``keep_waiting``, which is called while waiting, returned False.
        """
        if not line.content.strip():
            return True
        if line.too_long:
            self._refuse(line, f"{line.size} bytes; the longest line is {MAX_LINE_BYTES}. text is its beginning")
            return True
        defaults = {"id": uuid7(), "version": 1, "occurred_at": time.time_ns()}
        try:
            event = AuditEvent.from_json(line.content, defaults=defaults)
            accepted = self._wait_until(lambda: self._try_emit(event, line.number), keep_waiting)
        except (InvalidEventError, CatalogError) as error:
            self._refuse(line, str(error), error.errors if isinstance(error, InvalidEventError) else ())
        else:
            self.lines += accepted
            return accepted
        return True

    def finish(self, *, keep_waiting: Callable[[], bool]) -> None:
        """Wait until the queue is empty, as long as events are delivered or fail."""
        self._wait_until(lambda: self._producer.flush(_PAUSE_SECONDS) == 0, keep_waiting)

    def _try_emit(self, event: AuditEvent, number: int) -> bool:
        try:
            self._producer.emit_event(event, tag=number)
        except QueueFullError:
            self._producer.flush(_PAUSE_SECONDS)
            return False
        return True

    def _wait_until(self, done: Callable[[], bool], keep_waiting: Callable[[], bool]) -> bool:
        finished, since = -1, 0.0
        while not done():
            stats = self._producer.stats()
            now = time.monotonic()
            if stats.delivered + stats.failed != finished:
                finished, since = stats.delivered + stats.failed, now
            if now - since >= self._patience or not keep_waiting():
                return False
        return True

    def _refuse(self, line: NdjsonLine, reason: str, errors: tuple[FieldError, ...] = ()) -> None:
        self.lines += 1
        self._rejects.refuse(Rejected(line=line.number, reason=reason, errors=errors, content=line.content))
