"""The API, version 1: JSON for programs, with the rights of a token, or of whoever has signed in.

Filters are the parameters of the page's URL. Errors are problem+json.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstream_admin.api.models import (
    ActionModel,
    ActionsModel,
    EventModel,
    EventsModel,
    ExportModel,
    ExportRequestModel,
    ExportsModel,
)
from auditstream_admin.auth.access import access_of, viewer_of
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.context import AppContext, parts_of
from auditstream_admin.events.event_filter import MAX_TEXT, EventFilter
from auditstream_admin.events.stored_event import StoredEvent
from auditstream_admin.events.time_range import PRESETS
from auditstream_admin.web import export_routes
from auditstream_schemas.catalog import catalog
from auditstream_schemas.timestamp import format_timestamp

_JSON = "application/json"


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemModel"}}}
    return {"description": description, "content": content}


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem("A parameter makes no sense."),
    401: _problem("No token, or one that is unknown, has expired or was revoked."),
    403: _problem("This is not for this viewer to do."),
    421: _problem("The page has another address."),
    429: _problem("Too many requests: Retry-After says how long to wait."),
    503: _problem("ClickHouse cannot be asked; try again."),
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: _problem("It is not there, or not for this viewer to see.")}
_NO_EXPORTS: dict[int | str, dict[str, Any]] = {501: _problem("Exports are not set up here.")}
_CONFLICT: dict[int | str, dict[str, Any]] = {409: _problem("Its state does not allow this.")}

router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)

Who = Annotated[Viewer, Depends(viewer_of)]
Shared = Annotated[AppContext, Depends(parts_of)]
_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]


def _wanted(  # noqa: PLR0917 - FastAPI gives them by name
    request: Request,
    range: Annotated[
        str | None, Query(pattern=f"^({'|'.join(PRESETS)})$", description="A range that ends now.")
    ] = None,
    from_: Annotated[
        str | None, Query(alias="from", max_length=MAX_TEXT, description="First instant: a date, or ISO-8601.")
    ] = None,
    to: Annotated[str | None, Query(max_length=MAX_TEXT, description="First instant after the range; now.")] = None,
    action: Annotated[list[str] | None, Query(max_length=40, description="Globs: * any characters, ? one.")] = None,
    actor: _Text = None,
    target: _Text = None,
    scope: _Text = None,
    request_id: Annotated[str | None, Query(alias="request", max_length=MAX_TEXT)] = None,
    success: Annotated[Literal["true", "false"] | None, Query()] = None,
    meta: Annotated[list[str] | None, Query(max_length=40, description="key=value")] = None,
    q: Annotated[str | None, Query(max_length=MAX_TEXT, description="Words that the payload must have.")] = None,
) -> EventFilter:
    """The filter; the parameters are named for the OpenAPI document, and read as the page reads them."""
    del range, from_, to, action, actor, target, scope, request_id, success, meta, q
    return EventFilter.read(request.query_params.multi_items())


Wanted = Annotated[EventFilter, Depends(_wanted)]


@router.get("/events", response_model=EventsModel)
def events(  # noqa: PLR0917 - FastAPI gives them by name
    request: Request,
    viewer: Who,
    parts: Shared,
    wanted: Wanted,
    cursor: Annotated[str | None, Query(max_length=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Events, newest first.

    Follow next_cursor until it is null: every event that was visible at the first request comes exactly once.
    """
    place = None if cursor is None else parts.cursors.read(cursor, viewer, wanted)
    page = parts.store.page(viewer, wanted, cursor=place, size=limit, now=parts.clock(), whole=True)
    parts.audit.api_queried(access_of(request).origin, viewer, wanted=wanted.to_dict(), rows=len(page.lines))
    lines = ",".join(line.to_api_json() for line in page.lines if isinstance(line, StoredEvent))
    after = "null" if page.older is None else f'"{parts.cursors.write(page.older, viewer, wanted)}"'
    to = "null" if page.searched_to is None else f'"{format_timestamp(page.searched_to)}"'
    return Response(f'{{"events":[{lines}],"next_cursor":{after},"searched_to":{to}}}', media_type=_JSON)


@router.get("/events/{id}", response_model=EventModel, responses=_NOT_FOUND)
def event(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:
    """One event by its id."""
    found = parts.store.events(viewer, id)
    parts.audit.api_queried(access_of(request).origin, viewer, wanted={"id": str(id)}, rows=len(found))
    if not found:
        raise HTTPException(404, "there is no such event, or it is not for you to see")
    return Response(found[0].to_api_json(), media_type=_JSON)


@router.get("/actions")
def actions(request: Request, viewer: Who, parts: Shared, wanted: Wanted) -> ActionsModel:
    """The actions of the catalog, and those of a range of time that it does not list; only the range is looked at."""
    counts = dict(parts.store.actions(viewer, wanted.time.span(parts.clock())))
    parts.audit.api_queried(access_of(request).origin, viewer, wanted=wanted.to_dict(), rows=sum(counts.values()))
    known = catalog()
    return ActionsModel(
        actions=[
            ActionModel(
                action=name,
                events=counts.get(name, 0),
                description=known[name].description if name in known else None,
            )
            for name in sorted({*known, *counts})
        ]
    )


@router.get("/exports", responses=_NO_EXPORTS)
def exports(request: Request, viewer: Who, parts: Shared) -> ExportsModel:
    """The latest exports of one's own organisations, newest first."""
    jobs = export_routes.exports_of(request, parts, viewer).jobs()
    return ExportsModel(exports=[ExportModel.of(job) for job in jobs])


@router.post("/exports", status_code=202, responses=_NO_EXPORTS)
def request_export(request: Request, viewer: Who, parts: Shared, body: ExportRequestModel) -> ExportModel:
    """Ask for an export of what the filter shows; admins of an organisation only."""
    return ExportModel.of(export_routes.request_export(request, parts, viewer, body.query, body.format))


@router.get("/exports/{id}", responses={**_NOT_FOUND, **_NO_EXPORTS})
def export(request: Request, viewer: Who, parts: Shared, id: UUID) -> ExportModel:
    """One export and how far it is."""
    return ExportModel.of(export_routes.found_job(export_routes.exports_of(request, parts, viewer), id))


@router.delete("/exports/{id}", responses={**_NOT_FOUND, **_NO_EXPORTS})
def cancel_export(request: Request, viewer: Who, parts: Shared, id: UUID) -> ExportModel:
    """Stop an export that is under way."""
    return ExportModel.of(export_routes.cancel_export(request, parts, viewer, id))


@router.get(
    "/exports/{id}/file",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": {}}},
        **_NOT_FOUND,
        **_CONFLICT,
        **_NO_EXPORTS,
    },
)
def download(
    request: Request,
    viewer: Who,
    parts: Shared,
    id: UUID,
    name: Annotated[str | None, Query(max_length=200, description="One of the export's files; the first.")] = None,
) -> Response:
    """A file of a finished export: its events, its manifest, or the manifest's signature."""
    return export_routes.download(request, parts, viewer, id, name)
