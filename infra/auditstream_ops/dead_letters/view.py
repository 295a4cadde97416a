"""Prints dead letters, for people and for scripts."""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from auditstream_ops.dead_letters.content import RecordDecoder, event_json, hexdump, printable
from auditstream_ops.dead_letters.dead_letter import DeadLetter

_HEXDUMP_BYTES = 512


def list_line(dead_letter: DeadLetter) -> str:
    """One line of ``list``: time, name, reason, state, error."""
    return printable(
        f"{_time(dead_letter.written_at)}  {dead_letter.name}  {dead_letter.reason:<20} {_state(dead_letter)}  "
        f"{dead_letter.error}"
    ).replace("\n", " ")


def list_json(dead_letter: DeadLetter) -> dict[str, Any]:
    """The same as a JSON object."""
    names = ("state", "reason", "error", "topic", "topic_id", "partition", "offset")
    resolution = dead_letter.resolution
    return {
        "dead_letter": dead_letter.name,
        **{name: getattr(dead_letter, name) for name in names},
        "written_at": dead_letter.written_at.isoformat(),
        "key": None if dead_letter.key is None else dead_letter.key.decode("utf-8", "replace"),
        "bytes": len(dead_letter.value),
        "resolution": None if resolution is None else {**asdict(resolution), "at": resolution.at.isoformat()},
    }


def show_json(dead_letter: DeadLetter, decoder: RecordDecoder) -> dict[str, Any]:
    """A JSON object of a dead letter with its headers and its record, also while the registry is away."""
    record, fault = decoder.try_decode(dead_letter)
    return {
        **list_json(dead_letter),
        "headers": [
            [name, None if value is None else value.decode("utf-8", "replace")] for name, value in dead_letter.headers
        ],
        "key_base64": _base64(dead_letter.key),
        "value_base64": _base64(dead_letter.content),
        "record": record,
        "undecodable": fault or None,
    }


def show_lines(dead_letter: DeadLetter, decoder: RecordDecoder) -> Iterator[str]:
    """The lines of ``show``, also while the registry is away."""
    content = dead_letter.content
    facts = [
        ("name", dead_letter.name),
        ("topic id", dead_letter.topic_id),
        ("written", _time(dead_letter.written_at)),
        ("state", _state(dead_letter)),
        ("reason", dead_letter.reason),
        ("error", dead_letter.error),
        ("key", _escaped(dead_letter.key)),
        ("value", "none" if content is None else f"{len(content):,} bytes"),
        *(("header", f"{name}: {_escaped(value)}") for name, value in dead_letter.headers),
    ]
    for label, text in facts:
        yield f"{label:<9} {printable(text)}".replace("\n", "\\n")
    record, fault = decoder.try_decode(dead_letter)
    yield ""
    if record is not None:
        yield printable(event_json(record))
        return
    yield printable(f"not decodable: {fault}")
    yield from hexdump(dead_letter.value[:_HEXDUMP_BYTES])
    more = len(dead_letter.value) - _HEXDUMP_BYTES
    if more > 0:
        yield f"and {more:,} bytes more: --raw writes them all"


def _state(dead_letter: DeadLetter) -> str:
    resolution = dead_letter.resolution
    if resolution is None:
        return "open"
    text = f"{_time(resolution.at)} by {resolution.by}"
    if resolution.state == "replayed":
        text += f" to {dead_letter.topic}[{resolution.partition}]@{resolution.offset}"
    if resolution.edited:
        text += ", edited"
    return f"{resolution.state} ({text}{f': {resolution.why}' if resolution.why else ''})"


def _escaped(data: bytes | None) -> str:
    return "none" if data is None else data.decode("utf-8", "backslashreplace")


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
