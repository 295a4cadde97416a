"""Letters as people and scripts see them."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from auditstream_ops.dead_letters.content import RecordDecoder, event_json, hexdump, printable
from auditstream_ops.dead_letters.dead_letter import DeadLetter, Resolution

_HEXDUMP_BYTES = 512


def line(letter: DeadLetter) -> str:
    """One line of ``list``: when, which, what was done, why."""
    return printable(
        f"{_moment(letter.written_at)}  {letter.name}  {letter.reason:<20} {_state(letter)}  {letter.error}"
    ).replace("\n", " ")


def json_line(letter: DeadLetter) -> str:
    """The same for scripts, on one line."""
    return json.dumps(_summary(letter), ensure_ascii=False)


def json_whole(letter: DeadLetter, decoder: RecordDecoder) -> str:
    """Everything about one letter for scripts, on one line; the registry may be away."""
    record, fault = decoder.described(letter)
    whole = {
        **_summary(letter),
        "headers": [
            [name, None if value is None else value.decode("utf-8", "replace")] for name, value in letter.headers
        ],
        "key_base64": None if letter.key is None else base64.b64encode(letter.key).decode(),
        "value_base64": None if letter.content is None else base64.b64encode(letter.content).decode(),
        "record": record,
        "undecodable": fault or None,
    }
    return json.dumps(whole, ensure_ascii=False)


def page(letter: DeadLetter, decoder: RecordDecoder) -> Iterator[str]:
    """Everything about one letter for people, line by line; the registry may be away."""
    facts = [
        ("letter", letter.name),
        ("topic id", letter.topic_id),
        ("written", _moment(letter.written_at)),
        ("state", _state(letter)),
        ("reason", letter.reason),
        ("error", letter.error),
        ("key", "none" if letter.key is None else letter.key.decode("utf-8", "backslashreplace")),
        ("value", "none" if letter.content is None else f"{len(letter.content):,} bytes"),
        *(
            ("header", f"{name}: {'none' if value is None else value.decode('utf-8', 'backslashreplace')}")
            for name, value in letter.headers
        ),
    ]
    for name, text in facts:
        yield f"{name:<9} {printable(text)}".replace("\n", "\\n")
    record, fault = decoder.described(letter)
    yield ""
    if record is not None:
        yield printable(event_json(record))
        return
    yield printable(f"not decodable: {fault}")
    yield from hexdump(letter.value[:_HEXDUMP_BYTES])
    more = len(letter.value) - _HEXDUMP_BYTES
    if more > 0:
        yield f"and {more:,} bytes more: --raw writes them all"


def _state(letter: DeadLetter) -> str:
    marker = letter.marker
    if marker is None:
        return "open"
    what = f"{_moment(marker.at)} by {marker.by}"
    if marker.kind == "replayed":
        what += f" to {letter.topic}[{marker.partition}]@{marker.offset}"
    if marker.edited:
        what += ", edited"
    return f"{marker.kind} ({what}{f': {marker.why}' if marker.why else ''})"


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter": letter.name,
        "state": letter.state,
        "reason": letter.reason,
        "error": letter.error,
        "topic": letter.topic,
        "topic_id": letter.topic_id,
        "partition": letter.partition,
        "offset": letter.offset,
        "written_at": letter.written_at.isoformat(),
        "key": None if letter.key is None else letter.key.decode("utf-8", "replace"),
        "bytes": len(letter.value),
        "marker": None if letter.marker is None else _marker(letter.marker),
    }


def _marker(marker: Resolution) -> dict[str, Any]:
    return {
        "kind": marker.kind,
        "at": marker.at.isoformat(),
        "by": marker.by,
        "why": marker.why,
        "edited": marker.edited,
        "partition": marker.partition,
        "offset": marker.offset,
    }


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
