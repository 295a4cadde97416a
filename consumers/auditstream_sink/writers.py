"""The writer schemas met on the topic: fetched once from the registry, and checked for what the sink needs."""

import json
from dataclasses import dataclass
from typing import Any

from auditstream_schemas.errors import UnknownSchemaError
from auditstream_schemas.registry import RegistryClient
from auditstream_sink.framing import header
from auditstream_sink.metrics import Metrics
from auditstream_sink.writer_types import incompatibility


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterSchema:
    """A schema that records on the topic were written with.

    Attributes:
        schema_id: Its id in the registry.
        text: The Avro schema as the registry gives it.
        head: The container's head for its records.
    """

    schema_id: int
    text: str
    head: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableSchema:
    """Why records under a schema id cannot be stored.

    Attributes:
        reason: Dead-letter reason.
        error: A sentence for the person who reads the dead letters.
    """

    reason: str
    error: str


_MAX_SCHEMA_ID = 2**31 - 1
"""The registry's ids are Java's ``int``: it answers a larger one as it would a wrong path."""

_REMEMBER_UNUSABLE = 10_000
_REMEMBER_SECONDS = 60.0


class WriterSchemas:
    """Look-up by schema id, each asked of the registry once."""

    def __init__(self, registry: RegistryClient, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._known: dict[int, WriterSchema] = {}
        self._unusable: dict[int, UnusableSchema] = {}
        self._forget_at = 0.0

    def get(self, schema_id: int) -> WriterSchema | UnusableSchema:
        """The schema of an id, or why it is of no use. Blocks on the registry for an id not met before.

        Raises:
            RegistryError: The registry is away or refuses to answer; the record must wait.
        """
        met = self._known.get(schema_id) or self._unusable.get(schema_id)
        if met is not None:
            return met
        found = self._fetch(schema_id)
        if isinstance(found, WriterSchema):
            self._known[schema_id] = found
        else:
            self._unusable[schema_id] = found
        return found

    def get_known(self, schema_id: int) -> WriterSchema | None:
        """The schema of an id met before; never blocks."""
        return self._known.get(schema_id)

    def forget_unusable(self, now: float) -> None:
        """Once a minute, ask again for ids that were of no use: a registry may have been repaired meanwhile."""
        if now >= self._forget_at or len(self._unusable) > _REMEMBER_UNUSABLE:
            self._unusable.clear()
            self._forget_at = now + _REMEMBER_SECONDS

    def _fetch(self, schema_id: int) -> WriterSchema | UnusableSchema:
        if schema_id > _MAX_SCHEMA_ID:
            return UnusableSchema(reason="unknown_schema", error=f"schema id {schema_id} is larger than any id")
        with self._metrics.step("schema"):
            try:
                text = self._registry.schema(schema_id)
            except UnknownSchemaError as error:
                return UnusableSchema(reason="unknown_schema", error=f"schema id {schema_id}: {error}")
        try:
            schema: Any = json.loads(text)
        except ValueError:
            schema = None
        wrong = incompatibility(schema)
        if wrong:
            return UnusableSchema(reason="incompatible_schema", error=f"schema id {schema_id}: {wrong}")
        return WriterSchema(schema_id=schema_id, text=text, head=header(schema))
