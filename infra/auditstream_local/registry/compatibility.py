"""Whether an Avro schema may follow the earlier versions of its subject.

The judge is Apache Avro's own reader/writer check (``avro.compatibility``): fields without default, types
that cannot be promoted, missing enum symbols and union branches, names and aliases. It does not look at
logical types, nor does the Confluent registry; nor whether a default fits its type, which that one does.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Final

import avro.compatibility
import avro.errors
import avro.schema

LEVELS: Final = (
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
    "NONE",
)


class MalformedSchemaError(Exception):
    """A text is not an Avro schema."""


def canonical(schema_json: str) -> str:
    """Return the text by which two spellings of one schema are found equal.

    White space and the order of keys do not count; names, docs, defaults and logical types do.

    Raises:
        MalformedSchemaError: The text is not an Avro schema.
    """
    _parsed(schema_json)
    return json.dumps(json.loads(schema_json), sort_keys=True, separators=(",", ":"))


def objections(new: str, earlier: Sequence[str], level: str) -> list[str]:
    """Say what forbids a schema to follow earlier versions; nothing if it may.

    Args:
        new: The schema, as JSON text.
        earlier: The versions before it, oldest first.
        level: One of :data:`LEVELS`; those that are not transitive look at the newest version alone.

    Raises:
        MalformedSchemaError: A text is not an Avro schema.
    """
    if level == "NONE":
        return []
    compared = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    direction = level.removesuffix("_TRANSITIVE")
    mine = _parsed(new)
    found = []
    for text in reversed(compared):
        theirs = _parsed(text)
        if direction in {"BACKWARD", "FULL"}:
            found += _cannot_read(mine, theirs, "the new schema cannot read data of the old one")
        if direction in {"FORWARD", "FULL"}:
            found += _cannot_read(theirs, mine, "the old schema cannot read data of the new one")
    return found


def _parsed(schema_json: str) -> avro.schema.Schema:
    with warnings.catch_warnings():
        # A logical type that the library does not know, timestamp-nanos for one.
        warnings.simplefilter("ignore", avro.errors.IgnoredLogicalType)
        try:
            return avro.schema.parse(schema_json)
        except (avro.errors.AvroException, RecursionError) as error:
            raise MalformedSchemaError(str(error)) from error


def _cannot_read(reader: avro.schema.Schema, writer: avro.schema.Schema, what: str) -> list[str]:
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader, writer)
    if result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible:
        return []
    where = ", ".join(sorted(result.locations))
    return [f"{what} at {where}: {', '.join(sorted(result.messages))}"]
