"""The API, version 1: JSON for programs, with an API token or a session.

Filters use the same parameters as the page's URL. Errors are problem+json.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstream_admin.api import models
from auditstream_admin.auth.access import access_of
from auditstream_admin.context import Context, CurrentViewer, Exports
from auditstream_admin.events.event_filter import MAX_TEXT, EventFilter
from auditstream_admin.events.stored_event import StoredEvent
from auditstream_admin.events.time_range import PRESETS
from auditstream_schemas.catalog import catalog
from auditstream_schemas.timestamp import format_timestamp

_JSON = "application/json"


def _problems(descriptions: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemModel"}}}
    return {status: {"description": text, "content": content} for status, text in descriptions.items()}


_NOT_FOUND = _problems({404: "It does not exist, or the viewer may not see it."})
_NO_EXPORTS = _problems({501: "Exports are not configured."})

router = APIRouter(
    prefix="/api/v1",
    responses=_problems(
        {
            400: "A parameter is malformed.",
            401: "The token is missing, unknown, expired or revoked.",
            403: "The viewer may not do this.",
            421: "The request was sent to another host name than the page's.",
            429: "Too many requests; Retry-After is the time to wait in seconds.",
            503: "ClickHouse is not available; try again.",
        }
    ),
)

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]


def _event_filter(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    range: Annotated[
        str | None, Query(pattern=f"^({'|'.join(PRESETS)})$", description="A time range that ends now.")
    ] = None,
    from_: Annotated[
        str | None, Query(alias="from", max_length=MAX_TEXT, description="Start: a date or an ISO-8601 time.")
    ] = None,
    to: Annotated[str | None, Query(max_length=MAX_TEXT, description="End, exclusive; default: now.")] = None,
    action: Annotated[
        list[str] | None, Query(max_length=40, description="Patterns: * is any text, ? is one character.")
    ] = None,
    actor: _Text = None,
    target: _Text = None,
    scope: _Text = None,
    request_id: Annotated[str | None, Query(alias="request", max_length=MAX_TEXT)] = None,
    success: Annotated[Literal["true", "false"] | None, Query()] = None,
    meta: Annotated[list[str] | None, Query(max_length=40, description="key=value")] = None,
    q: Annotated[str | None, Query(max_length=MAX_TEXT, description="Words that the payload must contain.")] = None,
) -> EventFilter:
    """Read the filter. The parameters are declared for the OpenAPI document; `EventFilter` parses them."""
    del range, from_, to, action, actor, target, scope, request_id, success, meta, q
    return EventFilter.read(request.query_params.multi_items())


Filter = Annotated[EventFilter, Depends(_event_filter)]


@router.get("/events", response_model=models.EventsModel)
def events(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    viewer: CurrentViewer,
    context: Context,
    event_filter: Filter,
    cursor: Annotated[str | None, Query(max_length=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List events, newest first.

    Follow next_cursor until it is null: each event that was visible at the first request is returned exactly once.
    """
    position = None if cursor is None else context.cursors.read(cursor, viewer, event_filter)
    page = context.store.page(viewer, event_filter, cursor=position, size=limit, now=context.clock(), whole=True)
    context.audit.api_queried(
        access_of(request).origin, viewer, conditions=event_filter.to_dict(), rows=len(page.lines)
    )
    lines = ",".join(line.to_api_json() for line in page.lines if isinstance(line, StoredEvent))
    next_cursor = "null" if page.older is None else f'"{context.cursors.write(page.older, viewer, event_filter)}"'
    searched_to = "null" if page.searched_to is None else f'"{format_timestamp(page.searched_to)}"'
    text = f'{{"events":[{lines}],"next_cursor":{next_cursor},"searched_to":{searched_to}}}'
    return Response(text, media_type=_JSON)


@router.get("/events/{id}", response_model=models.EventModel, responses=_NOT_FOUND)
def event(request: Request, viewer: CurrentViewer, context: Context, id: UUID) -> Response:
    """Get one event by its id."""
    stored = context.store.events(viewer, id)
    context.audit.api_queried(access_of(request).origin, viewer, conditions={"id": str(id)}, rows=len(stored))
    if not stored:
        raise HTTPException(404, "this event does not exist, or you may not see it")
    return Response(stored[0].to_api_json(), media_type=_JSON)


@router.get("/actions")
def actions(request: Request, viewer: CurrentViewer, context: Context, event_filter: Filter) -> models.ActionsModel:
    """List the actions of the catalog and other actions in a time range. Only the time range of the filter is used."""
    counts = dict(context.store.actions(viewer, event_filter.time.span(context.clock())))
    context.audit.api_queried(
        access_of(request).origin, viewer, conditions=event_filter.to_dict(), rows=sum(counts.values())
    )
    listed = catalog()
    return models.ActionsModel(
        actions=[
            models.ActionModel(
                action=name,
                events=counts.get(name, 0),
                description=listed[name].description if name in listed else None,
            )
            for name in sorted({*listed, *counts})
        ]
    )


@router.get("/exports", responses=_NO_EXPORTS)
def exports(exports: Exports) -> models.ExportsModel:
    """List the latest exports of the viewer's organisations, newest first."""
    return models.ExportsModel(exports=[models.ExportModel.of(job) for job in exports.jobs()])


@router.post("/exports", status_code=202, responses=_NO_EXPORTS)
def request_export(exports: Exports, context: Context, body: models.ExportRequestModel) -> models.ExportModel:
    """Request an export of the events that match a filter. Only admins of an organisation may."""
    return models.ExportModel.of(exports.request(body.query, body.format, context.clock()))


@router.get("/exports/{id}", responses={**_NOT_FOUND, **_NO_EXPORTS})
def export(exports: Exports, id: UUID) -> models.ExportModel:
    """Get one export with its progress."""
    return models.ExportModel.of(exports.job(id))


@router.delete("/exports/{id}", responses={**_NOT_FOUND, **_NO_EXPORTS})
def cancel_export(exports: Exports, id: UUID) -> models.ExportModel:
    """Cancel an export that is queued or running."""
    return models.ExportModel.of(exports.cancel(id))


@router.get(
    "/exports/{id}/file",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": {}}},
        **_NOT_FOUND,
        **_problems({409: "The state of the export does not allow this."}),
        **_NO_EXPORTS,
    },
)
def download(
    exports: Exports,
    id: UUID,
    name: Annotated[
        str | None, Query(max_length=200, description="One of the export's files; default: the first.")
    ] = None,
) -> Response:
    """Download a file of a finished export: its events, its manifest, or the manifest's signature."""
    return exports.download(id, name)
