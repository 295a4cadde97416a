"""The API, version 1: JSON for programs, with the rights of a token."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from auditstream_admin.access import access_of, viewer_of
from auditstream_admin.event_filter import EventFilter
from auditstream_admin.events import StoredEvent
from auditstream_admin.parts import Parts, parts_of
from auditstream_admin.viewer import Viewer

router = APIRouter()

Who = Annotated[Viewer, Depends(viewer_of)]
Shared = Annotated[Parts, Depends(parts_of)]

_JSON = "application/json"


@router.get("/events")
def events(
    request: Request,
    viewer: Who,
    parts: Shared,
    cursor: Annotated[str | None, Query(max_length=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Events, newest first."""
    wanted = EventFilter.read(request.query_params.multi_items())
    place = None if cursor is None else parts.cursors.read(cursor, viewer, wanted)
    page = parts.store.page(viewer, wanted, cursor=place, size=limit, now=parts.clock(), whole=True)
    parts.audit.api_queried(access_of(request).origin, viewer, wanted=wanted.described(), rows=len(page.lines))
    lines = ",".join(line.to_api_json() for line in page.lines if isinstance(line, StoredEvent))
    after = "null" if page.older is None else f'"{parts.cursors.write(page.older, viewer, wanted)}"'
    return Response(f'{{"events":[{lines}],"next_cursor":{after}}}', media_type=_JSON)


@router.get("/events/{id}")
def event(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:  # noqa: A002 - the public name
    """One event by its id."""
    found = parts.store.events(viewer, id)
    parts.audit.api_queried(access_of(request).origin, viewer, wanted={"id": str(id)}, rows=len(found))
    if not found:
        raise HTTPException(404, "there is no such event, or it is not for you to see")
    return Response(found[0].to_api_json(), media_type=_JSON)


_later: tuple[Any, ...] = (BaseModel, Field)
