"""Events for tests: `make_event` makes numbered ones, the Hypothesis strategies make unusual ones."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from auditstream_schemas.event import AuditEvent, Entity, Request
from auditstream_schemas.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP

# Within the retention, whenever the tests run.
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=7)

_ACTIONS = ("context.create", "user.logged_in", "project.env_var.delete", "workflow.job.start")


def make_event(i: int, **overrides: Any) -> AuditEvent:
    """The i-th of a series of plain events. The same i gives the same event; a larger i, a later time.

    Overrides are arguments of `AuditEvent.build`.
    """
    values: dict[str, Any] = {
        "action": _ACTIONS[i % len(_ACTIONS)],
        "actor": Entity(id=f"user-{i % 7}", type="user", name=f"User {i % 7}", attributes={"ip": "192.0.2.1"}),
        "target": Entity(id=f"target-{i % 11}", type="project"),
        "payload": {"number": i, "note": f"event {i}"},
        "occurred_at": START + timedelta(milliseconds=i),
        "metadata": {"region": "eu-central-1"},
        "id": UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + i),
        "scope": Entity(id=f"org-{i % 3}", type="organization", name=f"Org {i % 3}"),
        "success": i % 10 != 9,
        "request": Request(id=f"request-{i // 2}"),
    }
    return AuditEvent.build(**(values | overrides))


def texts(*, min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that an event may contain: quotes, line breaks, all planes of Unicode."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=max_size)


def actions() -> st.SearchStrategy[str]:
    """Well-formed actions of two to four words."""
    words = st.from_regex(r"[a-z]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
    return st.lists(words, min_size=2, max_size=4).map(".".join)


def string_maps(*reserved: str) -> st.SearchStrategy[dict[str, str]]:
    """Attributes or metadata, without the reserved names."""
    return st.dictionaries(texts(max_size=8).filter(lambda key: key not in reserved), texts(), max_size=4)


def entities() -> st.SearchStrategy[Entity]:
    """Entities with and without names and attributes."""
    return st.builds(
        Entity,
        id=texts(min_size=1),
        type=texts(min_size=1, max_size=8),
        name=st.none() | texts(),
        attributes=string_maps("id", "type", "name"),
    )


def requests() -> st.SearchStrategy[Request]:
    """Requests with and without attributes."""
    return st.builds(Request, id=texts(min_size=1), attributes=string_maps("id"))


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects of values of every type, with integers far beyond 64 bits."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(10**40), 10**40)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
    )
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(max_size=6), inner, max_size=3),
        max_leaves=8,
    )
    return st.dictionaries(texts(max_size=8), values, max_size=4)


@st.composite
def payload_texts(draw: st.DrawFn) -> str:
    """JSON texts of objects in many spellings: spaces, escapes, exponents, repeated keys."""
    value = draw(json_objects())
    text = json.dumps(
        value,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n", "\t:")])),
    )
    extra = draw(
        st.sampled_from(["", '"n": 1.10', '"n":1E5 , "n" :-0', '"a b\\u00e9\\/" : [ 1.0e-7 ]', '"big":' + "9" * 50])
    )
    if not extra:
        return text
    return "{" + extra + ("," if value else "") + text.lstrip()[1:]


def timestamps() -> st.SearchStrategy[int]:
    """All times that an event may have, in nanoseconds."""
    return st.integers(MIN_TIMESTAMP, MAX_TIMESTAMP)


def events() -> st.SearchStrategy[AuditEvent]:
    """Events with a random value in every field."""
    return st.builds(
        AuditEvent,
        action=actions(),
        actor=entities(),
        target=entities(),
        payload=payload_texts(),
        occurred_at=timestamps(),
        metadata=string_maps(),
        id=st.uuids(),
        version=st.integers(1, 65_535),
        scope=st.none() | entities(),
        success=st.booleans(),
        request=st.none() | requests(),
    )
