"""Events from NDJSON: one event in its JSON shape a line."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TextIO

from uuid_utils.compat import uuid7

from auditstream_producer.emitter import EventEmitter
from auditstream_producer.outcome import DeliveryFailure
from auditstream_schemas.errors import CatalogError, FieldError, InvalidEventError, OperationError, QueueFullError
from auditstream_schemas.event import AuditEvent

MAX_LINE_BYTES = 8_388_608
"""Longest line that is read: an event of the largest size, every character of it escaped, fits in it."""

_BOM = b"\xef\xbb\xbf"
_SHOWN_BYTES = 1000
_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class NdjsonLine:
    """One line of a file.

    Attributes:
        number: From 1.
        content: Its bytes without the line break; the first ones if it is too long.
        size: How many bytes it takes in the file, line break included.
        too_long: Whether it is longer than `MAX_LINE_BYTES`.
    """

    number: int
    content: bytes
    size: int
    too_long: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One line that did not become a delivered event.

    Attributes:
        line: Its number, from 1.
        reason: Why, in a sentence.
        errors: The fields at fault, if it was refused for them.
        content: The line's own bytes if it was refused. The event as JSON if it was taken and not delivered: with
            the id that it was given, so that emitting it again cannot double it.
        event_id: The event's id if it was taken and not delivered.
    """

    line: int
    reason: str
    errors: tuple[FieldError, ...] = ()
    content: bytes
    event_id: str | None = None

    def to_json(self) -> str:
        """Write it as one line of a rejects file, without the line break.

        What is not UTF-8 stands there twice: readable as ``text``, exact as ``base64``.
        """
        found: dict[str, object] = {
            "line": self.line,
            "reason": self.reason,
            "errors": [{"field": e.field, "was": e.was, "expected": e.expected} for e in self.errors],
        }
        if self.event_id is not None:
            found["id"] = self.event_id
        found["text"] = self.content.decode("utf-8", "replace")
        if not _is_utf8(self.content):
            found["base64"] = base64.b64encode(self.content).decode("ascii")
        return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


class Rejects:
    """Counts rejected lines and writes them down. Safe to share between threads.

    Attributes:
        refused: Lines that were never taken.
        undelivered: Events that were taken and not delivered.
        first: The first few rejected lines.
    """

    def __init__(self, file: TextIO | None, *, keep: int = 5) -> None:
        """Start with none.

        Args:
            file: Where each goes as one line of JSON; None to only count.
            keep: How many to remember in ``first``.
        """
        self._file = file
        self._keep = keep
        self._lock = threading.Lock()
        self.refused = 0
        self.undelivered = 0
        self.first: list[Rejected] = []

    def refuse(self, rejected: Rejected) -> None:
        """Note a line that was not taken.

        Raises:
            OperationError: It cannot be written down.
        """
        with self._lock:
            self.refused += 1
            self._note(rejected)

    def on_error(self, failure: DeliveryFailure) -> None:
        """Note an event that was not delivered: give this to the producer."""
        rejected = Rejected(
            line=failure.tag if isinstance(failure.tag, int) else 0,
            reason=failure.reason,
            content=failure.event.to_json().encode(),
            event_id=str(failure.event_id),
        )
        with self._lock:
            self.undelivered += 1
            self._note(rejected)

    def _note(self, rejected: Rejected) -> None:
        if len(self.first) < self._keep:
            self.first.append(rejected)
        if self._file is not None:
            try:
                self._file.write(rejected.to_json() + "\n")
            except OSError as error:
                raise OperationError(
                    f"cannot write line {rejected.line} to the rejects file: {error.strerror}"
                ) from error


def read_lines(stream: BinaryIO) -> Iterator[NdjsonLine]:
    """Read lines one at a time; of one that is too long, only its beginning is kept in memory."""
    number = 0
    while content := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        size = len(content)
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
    """Emits lines, and waits while the local queue is full.

    Attributes:
        lines: How many lines with something in them were read.
    """

    def __init__(self, producer: EventEmitter, rejects: Rejects, *, patience: float) -> None:
        """Prepare.

        Args:
            producer: Takes the events; its failures should go to `Rejects.on_error`.
            rejects: Takes the lines that are refused.
            patience: Seconds without any event delivered or failed after which to give up.
        """
        self._producer = producer
        self._rejects = rejects
        self._patience = patience
        self.lines = 0

    def emit_line(self, line: NdjsonLine, *, wanted: Callable[[], bool]) -> bool:
        """Emit one line; a blank one is passed over. Blocks while the queue is full.

        A missing id (UUIDv7), version (1) or occurred_at (now) is filled in.

        Args:
            line: The line.
            wanted: Asked while waiting whether to go on.

        Returns:
            False if the line was neither taken nor refused: the queue stayed full for ``patience`` seconds, or
            it was not wanted any more.
        """
        if not line.content.strip():
            return True
        self.lines += 1
        if line.too_long:
            self._refuse(line, f"{line.size} bytes, and a line holds at most {MAX_LINE_BYTES}; text is its beginning")
            return True
        try:
            event = AuditEvent.from_json(
                line.content, defaults={"id": uuid7(), "version": 1, "occurred_at": time.time_ns()}
            )
            return self._emit(event, line.number, wanted)
        except InvalidEventError as error:
            self._refuse(line, str(error), error.errors)
        except CatalogError as error:
            self._refuse(line, str(error))
        return True

    def finish(self, *, wanted: Callable[[], bool]) -> None:
        """Wait for the events in the queue, for as long as they go out."""
        self._while_moving(lambda: self._producer.flush(_PAUSE_SECONDS) == 0, wanted)

    def _emit(self, event: AuditEvent, number: int, wanted: Callable[[], bool]) -> bool:
        def taken() -> bool:
            try:
                self._producer.emit_event(event, tag=number)
            except QueueFullError:
                self._producer.flush(_PAUSE_SECONDS)
                return False
            return True

        if self._while_moving(taken, wanted):
            return True
        self.lines -= 1
        return False

    def _while_moving(self, done: Callable[[], bool], wanted: Callable[[], bool]) -> bool:
        settled, since = -1, 0.0
        while not done():
            stats = self._producer.stats()
            now = time.monotonic()
            if stats.delivered + stats.failed != settled:
                settled, since = stats.delivered + stats.failed, now
            if now - since >= self._patience or not wanted():
                return False
        return True

    def _refuse(self, line: NdjsonLine, reason: str, errors: tuple[FieldError, ...] = ()) -> None:
        self._rejects.refuse(Rejected(line=line.number, reason=reason, errors=errors, content=line.content))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
