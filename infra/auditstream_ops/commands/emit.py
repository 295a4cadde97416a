"""``auditstream emit``."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn, Self, TextIO

import click
from tqdm import tqdm
from typed_settings import click_options

from auditstream_producer import AuditProducer, ProducerSettings
from auditstream_producer.ndjson import NdjsonEmitter, NdjsonLine, Rejects, read_lines
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import loaders

_REJECTS_SHOWN = 5


@click.command()
@click.argument("source", metavar="FILE", type=click.File("rb"))
@click.option(
    "--rejects",
    "rejects_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write refused lines and undelivered events with their reasons to this file, which is overwritten.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop when the broker accepts nothing for so long.",
)
@click.option("--strict", is_flag=True, help="Short for --catalog-mode strict: refuse actions not in the catalog.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click_options(ProducerSettings, loaders(), argname="settings", show_envvars_in_help=True)
def emit(
    source: BinaryIO,
    *,
    settings: ProducerSettings,
    rejects_path: Path | None,
    timeout: float,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Send the events of FILE, or of standard input if FILE is -, to Kafka.

    FILE is NDJSON: one event as JSON on each line; blank lines are skipped. A missing id, version or
    occurred_at is filled in (a new UUIDv7, 1, now). An event with an id may be sent again: the sink drops
    the second delivery.

    A line that is not a valid event is refused, and the next line is read. Each line of the rejects file is
    {"line": its number, "reason": ..., "errors": [the fields at fault], "text": the unchanged line}. For an
    undelivered event there is also the "id", and the text contains the id that was filled in.

    The last line counts accepted, refused, delivered and undelivered events. Exit codes: 0 all were
    delivered; 1 a line was refused or an event not delivered; 2 called wrongly; 130 interrupted, after the
    accepted events have been sent.

    \b
    Examples:
      auditstream emit events.ndjson
      zcat events.ndjson.gz | auditstream emit - --rejects rejects.ndjson
      jq -r .text rejects.ndjson | auditstream emit -
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    if strict:
        settings = dataclasses.replace(settings, catalog_mode="strict")
    with _rejects_file(rejects_path, source) as rejects_file, _Interruption() as interruption:
        rejects = Rejects(rejects_file, keep=_REJECTS_SHOWN)
        producer = AuditProducer(settings, on_error=rejects.on_error)
        emitter = NdjsonEmitter(producer, rejects, patience=timeout)
        stopped_at = None
        with _progress(source, quiet=quiet) as bar:
            for line in interruption.watch(read_lines(source)):
                if not emitter.emit_line(line, keep_waiting=lambda: interruption.count == 0):
                    stopped_at = line.number
                    break
                bar.update(1 if bar.total is None else line.size)
        emitter.finish(keep_waiting=lambda: interruption.count < 2)
        producer.close(0)
    stats = producer.stats()
    if rejects_path is None:
        _print_rejects(rejects)
    if stopped_at is not None:
        click.echo(f"stopped: line {stopped_at} and those after it were not sent", err=True)
    counts = {
        "accepted": stats.accepted,
        "refused": rejects.refused,
        "delivered": stats.delivered,
        "undelivered": stats.failed + stats.in_queue,
    }
    if as_json:
        click.echo(json.dumps({"lines": emitter.lines, **counts, "stopped_at_line": stopped_at}))
    else:
        click.echo(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if interruption.count:
        sys.exit(128 + interruption.number)
    if rejects.refused or stats.delivered < stats.accepted or stopped_at is not None:
        sys.exit(1)


class _Interruption:
    """Counts SIGINT and SIGTERM, so that no signal interrupts between accepting an event and counting it.

    Only while a line is read does a signal raise an exception, because a read may block without end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.number = 0
        self._reading = False
        self._before: dict[int, Any] = {}

    def watch(self, lines: Iterator[NdjsonLine]) -> Iterator[NdjsonLine]:
        """Yield lines until there is a signal."""
        while self.count == 0:
            try:
                self._reading = True
                line = next(lines, None)
                self._reading = False
            except KeyboardInterrupt:
                return
            if line is None:
                return
            yield line

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.number = number
        if self._reading:
            self._reading = False
            raise KeyboardInterrupt


def _rejects_file(path: Path | None, source: BinaryIO) -> AbstractContextManager[TextIO | None]:
    if path is None:
        return nullcontext()
    if path.exists() and os.path.samestat(path.stat(), os.fstat(source.fileno())):
        raise click.UsageError("--rejects would overwrite FILE: name another file")
    try:
        # Buffered by line: refused lines are on disk even if this process is killed.
        return path.open("w", encoding="utf-8", buffering=1)
    except OSError as error:
        raise OperationError(f"cannot write the rejects to {path}: {error.strerror}") from error


def _progress(source: BinaryIO, *, quiet: bool) -> "tqdm[NoReturn]":
    hidden = quiet or not sys.stderr.isatty()
    if not source.seekable():
        return tqdm(desc="emit", unit=" lines", unit_scale=True, disable=hidden)
    size = os.fstat(source.fileno()).st_size
    return tqdm(desc="emit", total=size, unit="B", unit_scale=True, unit_divisor=1024, disable=hidden)


def _print_rejects(rejects: Rejects) -> None:
    for rejected in rejects.first:
        click.echo(f"line {rejected.line}: {rejected.reason}", err=True)
    more = rejects.refused + rejects.undelivered - len(rejects.first)
    if more:
        click.echo(f"and {more:,} more: --rejects FILE writes them all, with reasons", err=True)
