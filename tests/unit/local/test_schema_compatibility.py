import json
from typing import Any

import pytest

from auditstream_local.registry.compatibility import MalformedSchemaError, canonical, objections


def record(**fields: Any) -> str:
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": n, **f} for n, f in fields.items()]})


V1 = record(a={"type": "int"})
WITH_DEFAULT = record(a={"type": "int"}, b={"type": "string", "default": ""})
WITHOUT_DEFAULT = record(a={"type": "int"}, b={"type": "string"})
PROMOTED = record(a={"type": "long"})


@pytest.mark.parametrize(
    ("new", "old", "backward", "forward"),
    [
        (WITH_DEFAULT, V1, True, True),
        (WITHOUT_DEFAULT, V1, False, True),
        (V1, WITHOUT_DEFAULT, True, False),
        (PROMOTED, V1, True, False),
        ('["null", "string"]', '"string"', True, False),
        ('{"type":"enum","name":"E","symbols":["A","B"]}', '{"type":"enum","name":"E","symbols":["A"]}', True, False),
        (V1.replace('"R"', '"S"'), V1, False, False),
        (V1.replace('"name": "a"', '"name": "z", "aliases": ["a"]'), V1, True, False),
    ],
)
def test_levels_look_in_their_direction(new: str, old: str, backward: bool, forward: bool) -> None:
    assert (not objections(new, [old], "BACKWARD")) == backward
    assert (not objections(new, [old], "FORWARD")) == forward
    assert (not objections(new, [old], "FULL")) == (backward and forward)
    assert objections(new, [old], "NONE") == []


def test_only_a_transitive_level_looks_beyond_the_newest_version() -> None:
    history = [record(a={"type": "string"}), record()]
    new = record(a={"type": "int", "default": 0})
    assert objections(new, history, "BACKWARD") == []
    (objection,) = objections(new, history, "BACKWARD_TRANSITIVE")
    assert "string" in objection


def test_a_first_version_meets_no_objection() -> None:
    assert objections(V1, [], "FULL_TRANSITIVE") == []


def test_spelling_does_not_count_and_meaning_does() -> None:
    nanos = '{"type": "long", "logicalType": "timestamp-nanos"}'
    assert canonical(nanos) == canonical('{ "logicalType":"timestamp-nanos",\n"type":"long" }')
    assert canonical(nanos) != canonical('{"type": "long"}')
    assert canonical(record(a={"type": "int", "doc": "x"})) != canonical(V1)


@pytest.mark.parametrize("text", ["", "{", '"strin"', '{"type": "record"}', "7", "null", "[" * 10_000])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(MalformedSchemaError):
        canonical(text)
