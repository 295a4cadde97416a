"""Writer schemas: each is fetched once from the registry, and checked."""

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
    """The schema of records on the topic.

    Attributes:
        schema_id: Its id in the registry.
        text: The Avro schema, as the registry gives it.
        head: The container's head for its records.
    """

    schema_id: int
    text: str
    head: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableSchema:
    """Why the records of a schema id cannot be stored.

    Attributes:
        reason: Dead-letter reason.
        error: A sentence for the reader of the dead letters.
    """

    reason: str
    error: str


_MAX_SCHEMA_ID = 2**31 - 1
"""The registry's ids are 32-bit integers: a larger one gets the answer of a wrong path."""

_MAX_UNUSABLE = 10_000
_UNUSABLE_SECONDS = 60.0


class WriterSchemas:
    """Looks writer schemas up by id; asks the registry once for each."""

    def __init__(self, registry: RegistryClient, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._known: dict[int, WriterSchema] = {}
        self._unusable: dict[int, UnusableSchema] = {}
        self._forget_at = 0.0

    def get(self, schema_id: int) -> WriterSchema | UnusableSchema:
        """The schema of an id, or why it is unusable. Blocks on the registry for a new id.

        Raises:
            RegistryError: The registry is away or refuses to answer; the record has to wait.
        """
        schema = self._known.get(schema_id) or self._unusable.get(schema_id)
        if schema is None:
            schema = self._fetch(schema_id)
            if isinstance(schema, WriterSchema):
                self._known[schema_id] = schema
            else:
                self._unusable[schema_id] = schema
        return schema

    def get_known(self, schema_id: int) -> WriterSchema | None:
        """The schema of an id that was fetched already; never blocks."""
        return self._known.get(schema_id)

    def forget_unusable(self, now: float) -> None:
        """Once a minute, forget the unusable ids: the registry may have been repaired meanwhile."""
        if now >= self._forget_at or len(self._unusable) > _MAX_UNUSABLE:
            self._unusable.clear()
            self._forget_at = now + _UNUSABLE_SECONDS

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
        error_text = incompatibility(schema)
        if error_text:
            return UnusableSchema(reason="incompatible_schema", error=f"schema id {schema_id}: {error_text}")
        return WriterSchema(schema_id=schema_id, text=text, head=header(schema))
