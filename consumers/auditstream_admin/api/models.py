"""What the API answers, for its OpenAPI document. Events are written as text: a payload stays as it is."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from auditstream_admin.exports.service import ExportFormat, ExportJobView, ExportState
from auditstream_schemas.timestamp import format_timestamp


class EntityModel(BaseModel):
    """An actor, a target or a scope; its attributes stand beside id, type and name."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    name: str | None = None


class RequestModel(BaseModel):
    """What caused an event; its attributes stand beside the id."""

    model_config = ConfigDict(extra="allow")

    id: str


class KafkaModel(BaseModel):
    """Where an event came from."""

    topic: str
    topic_id: UUID
    partition: int
    offset: int


class EventModel(BaseModel):
    """An event as it was emitted, and when and from where it was stored."""

    action: str
    actor: EntityModel
    target: EntityModel
    payload: dict[str, Any]
    occurred_at: str = Field(description="UTC, up to nine fractional digits.")
    metadata: dict[str, str]
    id: UUID
    version: int
    scope: EntityModel | None = None
    success: bool
    request: RequestModel | None = None
    ingested_at: str
    kafka: KafkaModel


class EventsModel(BaseModel):
    """A page of events, newest first."""

    events: list[EventModel]
    next_cursor: str | None = Field(description="Give it as cursor, with the same filter, for the next page.")
    searched_to: str | None = Field(
        description="If the search took too long: how far back it came; next_cursor goes on from there."
    )


class ActionModel(BaseModel):
    """An action."""

    action: str
    events: int = Field(description="Events of the range that the viewer may see.")
    description: str | None = Field(description="From the catalog; null for an action that it does not list.")


class ActionsModel(BaseModel):
    """Actions of a range: those of the catalog, and what else there was."""

    actions: list[ActionModel]


class ExportRequestModel(BaseModel):
    """What is to be exported."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        default="", max_length=8000, description="The filter, as the query of the page's URL: range=7d&action=user.*"
    )
    format: ExportFormat = "csv"


class ExportModel(BaseModel):
    """An export."""

    id: UUID
    state: ExportState
    scopes: list[str]
    query: str
    start: str
    end: str
    format: ExportFormat
    requested_by: str
    requested_at: str
    rows: int
    total: int | None
    rate: float | None = Field(description="Events a second, of late")
    remaining_seconds: float | None = Field(description="Until the events are written, as far as one can tell")
    size: int | None
    sha256: str | None
    files: list[str]
    expires_at: str | None
    error: str | None

    @classmethod
    def of(cls, job: ExportJobView) -> "ExportModel":
        """Make it from a job."""
        return cls(
            id=job.id,
            state=job.state,
            scopes=list(job.scopes),
            query=job.filter,
            start=format_timestamp(job.span.start),
            end=format_timestamp(job.span.end),
            format=job.format,
            requested_by=job.requested_by,
            requested_at=format_timestamp(job.requested_at),
            rows=job.rows,
            total=job.total,
            rate=job.rate,
            remaining_seconds=job.remaining,
            size=job.size,
            sha256=job.sha256,
            files=list(job.files),
            expires_at=None if job.expires_at is None else format_timestamp(job.expires_at),
            error=job.error,
        )


class ExportsModel(BaseModel):
    """Exports, newest first."""

    exports: list[ExportModel]


class FaultModel(BaseModel):
    """A parameter at fault."""

    parameter: str
    reason: str


class ProblemModel(BaseModel):
    """An error (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[FaultModel] | None = None
