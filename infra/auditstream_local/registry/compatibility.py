"""Checks whether a new Avro schema is compatible with the earlier versions of its subject.

The check is Apache Avro's own (``avro.compatibility``): fields without default, types that cannot be promoted, missing
enum symbols and union branches, names and aliases. Logical types are not compared; the Confluent registry does not
compare them either. Unlike that registry, it does not check that a default value fits its type.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Final

import avro.compatibility
import avro.errors
import avro.schema

LEVELS: Final = ("BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE", "NONE")


class MalformedSchemaError(Exception):
    """A text is not an Avro schema."""


def canonical(schema_json: str) -> str:
    """Return a normal form of a schema: two texts are the same schema if their normal forms are equal.

    White space and the order of keys do not matter. Names, docs, defaults and logical types do.

    Raises:
        MalformedSchemaError: The text is not an Avro schema.
    """
    _parsed(schema_json)
    return json.dumps(json.loads(schema_json), sort_keys=True, separators=(",", ":"))


def incompatibilities(new: str, earlier: Sequence[str], level: str) -> list[str]:
    """Return the reasons why a schema is incompatible with earlier versions; empty if it is compatible.

    Args:
        new: The schema, as JSON text.
        earlier: The versions before it, oldest first.
        level: One of :data:`LEVELS`; levels that are not transitive compare with the newest version only.

    Raises:
        MalformedSchemaError: A text is not an Avro schema.
    """
    if level == "NONE":
        return []
    compared = earlier if level.endswith("_TRANSITIVE") else earlier[-1:]
    direction = level.removesuffix("_TRANSITIVE")
    new_schema = _parsed(new)
    reasons = []
    for text in reversed(compared):
        old_schema = _parsed(text)
        if direction in {"BACKWARD", "FULL"}:
            reasons += _cannot_read(new_schema, old_schema, "the new schema cannot read data of the old one")
        if direction in {"FORWARD", "FULL"}:
            reasons += _cannot_read(old_schema, new_schema, "the old schema cannot read data of the new one")
    return reasons


def _parsed(schema_json: str) -> avro.schema.Schema:
    with warnings.catch_warnings():
        # The library does not know every logical type, for example timestamp-nanos.
        warnings.simplefilter("ignore", avro.errors.IgnoredLogicalType)
        try:
            return avro.schema.parse(schema_json)
        except (avro.errors.AvroException, RecursionError) as error:
            raise MalformedSchemaError(str(error)) from error


def _cannot_read(reader: avro.schema.Schema, writer: avro.schema.Schema, reason: str) -> list[str]:
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader, writer)
    if result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible:
        return []
    locations = ", ".join(sorted(result.locations))
    return [f"{reason} at {locations}: {', '.join(sorted(result.messages))}"]
