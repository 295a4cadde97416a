import json
from typing import Any

import pytest

from auditstream_local.registry.compatibility import MalformedSchemaError, canonical, incompatibilities


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
def test_a_level_compares_in_its_direction(new: str, old: str, backward: bool, forward: bool) -> None:
    assert (not incompatibilities(new, [old], "BACKWARD")) == backward
    assert (not incompatibilities(new, [old], "FORWARD")) == forward
    assert (not incompatibilities(new, [old], "FULL")) == (backward and forward)
    assert incompatibilities(new, [old], "NONE") == []


def test_only_a_transitive_level_compares_beyond_the_newest_version() -> None:
    history = [record(a={"type": "string"}), record()]
    new = record(a={"type": "int", "default": 0})
    assert incompatibilities(new, history, "BACKWARD") == []
    (reason,) = incompatibilities(new, history, "BACKWARD_TRANSITIVE")
    assert "string" in reason


def test_a_first_version_is_compatible() -> None:
    assert incompatibilities(V1, [], "FULL_TRANSITIVE") == []


def test_white_space_and_key_order_do_not_matter() -> None:
    nanos = '{"type": "long", "logicalType": "timestamp-nanos"}'
    assert canonical(nanos) == canonical('{ "logicalType":"timestamp-nanos",\n"type":"long" }')
    assert canonical(nanos) != canonical('{"type": "long"}')
    assert canonical(record(a={"type": "int", "doc": "x"})) != canonical(V1)


@pytest.mark.parametrize("text", ["", "{", '"strin"', '{"type": "record"}', "7", "null", "[" * 10_000])
def test_a_text_that_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(MalformedSchemaError):
        canonical(text)
