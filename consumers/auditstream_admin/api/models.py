"""The OpenAPI document of the API and its models. Events are sent as text, so payloads stay exact."""

from typing import Any, Literal
from uuid import UUID

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from auditstream_export import ExportJob, Format, JobState
from auditstream_schemas.timestamp import format_timestamp


class EntityModel(BaseModel):
    """An actor, a target or a scope; other attributes are members next to id, type and name."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    name: str | None = None


class RequestModel(BaseModel):
    """The request that caused an event; its attributes are members next to the id."""

    model_config = ConfigDict(extra="allow")

    id: str


class KafkaModel(BaseModel):
    """The Kafka coordinates of an event."""

    topic: str
    topic_id: UUID
    partition: int
    offset: int


class EventModel(BaseModel):
    """An event as it was emitted, with its ingestion time and Kafka coordinates."""

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
    ingested_at: str = Field(description="UTC, by the sink's clock.")
    kafka: KafkaModel


class EventsModel(BaseModel):
    """A page of events, newest first."""

    events: list[EventModel]
    next_cursor: str | None = Field(description="Send it as cursor, with the same filter, to get the next page.")
    searched_to: str | None = Field(
        description="If the search took too long: the time back to which it came. next_cursor continues from there."
    )


class ActionModel(BaseModel):
    """An action."""

    action: str
    events: int = Field(description="Number of events in the range that the viewer may see.")
    description: str | None = Field(description="From the catalog; null if the catalog does not list the action.")


class ActionsModel(BaseModel):
    """The actions of the catalog, and other actions in the range."""

    actions: list[ActionModel]


class ExportRequestModel(BaseModel):
    """A request for an export."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(
        default="", max_length=8000, description="The filter, as the query of the page's URL: range=7d&action=user.*"
    )
    format: Format = "csv"


class ExportModel(BaseModel):
    """An export."""

    id: UUID
    state: JobState
    scopes: list[str] = Field(description="Scopes whose events the export contains; empty for all.")
    query: str
    start: str
    end: str
    format: Format
    requested_by: str
    requested_at: str
    rows: int = Field(description="Events written so far.")
    total: int | None = Field(description="Events in total; null until they are counted.")
    rate: float | None = Field(description="Events per second; null unless the export is running.")
    remaining_seconds: float | None = Field(description="Estimated time until all events are written.")
    size: int | None = Field(description="Bytes of the files with events.")
    sha256: str | None = Field(description="Of the file with events; null if there are several.")
    files: list[str] = Field(description="Files with events first, then the manifest and its signature.")
    expires_at: str | None
    error: str | None

    @classmethod
    def of(cls, job: ExportJob) -> "ExportModel":
        """Make it from a job."""
        return cls(
            id=job.id,
            state=job.state,
            scopes=list(job.scopes),
            query=job.label,
            start=format_timestamp(job.request.start),
            end=format_timestamp(job.request.end),
            format=job.output_format.format,
            requested_by=job.requester.id,
            requested_at=format_timestamp(job.requested_at),
            rows=job.rows,
            total=job.total,
            rate=(job.rate or None) if job.state == "running" else None,
            remaining_seconds=job.remaining,
            size=job.bytes if job.data else None,
            sha256=job.data[0].sha256 if len(job.data) == 1 else None,
            files=[file.name for file in (*job.data, *job.proofs)],
            expires_at=None if job.expires_at is None else format_timestamp(job.expires_at),
            error=job.error or None,
        )


class ExportsModel(BaseModel):
    """Exports, newest first."""

    exports: list[ExportModel]


class ParameterErrorModel(BaseModel):
    """A malformed parameter."""

    parameter: str
    reason: str


class ProblemModel(BaseModel):
    """An error (RFC 9457)."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[ParameterErrorModel] | None = None


def openapi(routes: FastAPI) -> dict[str, Any]:
    """The document; generated once.

    FastAPI documents status 422 for malformed parameters. The API responds with 400 and a problem document instead.
    """
    if routes.openapi_schema is None:
        document = get_openapi(title=routes.title, version=routes.version, summary=routes.summary, routes=routes.routes)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = ProblemModel.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}), ProblemModel=problem)
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "Created by `auditstream token create`."}
        }
        document["security"] = [{"token": []}]
        routes.openapi_schema = document
    return routes.openapi_schema
