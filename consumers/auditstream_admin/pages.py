"""The pages: HTML made on the server. What they show is in the URL."""

from datetime import tzinfo
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from auditstream_admin import export_routes, time_range
from auditstream_admin.access import access_of, viewer_of
from auditstream_admin.event_filter import EventFilter
from auditstream_admin.exports import ExportFormat
from auditstream_admin.parts import Parts, parts_of
from auditstream_admin.time_range import PRESETS
from auditstream_admin.viewer import Viewer
from auditstream_schemas.catalog import catalog
from auditstream_schemas.errors import FilterError
from auditstream_schemas.timestamp import format_timestamp

router = APIRouter()

PAGE_SIZE = 50

_environment = Environment(
    loader=FileSystemLoader(str(resources.files("auditstream_admin").joinpath("templates"))),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates = Jinja2Templates(env=_environment)

Who = Annotated[Viewer, Depends(viewer_of)]
Shared = Annotated[Parts, Depends(parts_of)]


@router.get("/healthz")
def health() -> dict[str, bool]:
    """Whether this process answers; the one route that says anything to nobody."""
    return {"alive": True}


@router.get("/")
def home() -> Response:
    """The list is what one comes for."""
    return RedirectResponse("/events", status_code=303)


@router.get("/events")
def events(request: Request, viewer: Who, parts: Shared, cursor: str | None = None) -> Response:
    """The list: filter, histogram, a page of events."""
    try:
        wanted = EventFilter.read(request.query_params.multi_items())
        place = None if cursor is None else parts.cursors.read(cursor, viewer, wanted)
    except FilterError as error:
        return render(request, "events.html", status=400, **_context(viewer, EventFilter(), error=error))
    page = parts.store.page(viewer, wanted, cursor=place, size=PAGE_SIZE, now=parts.clock())
    histogram = parts.store.histogram(viewer, wanted, span=page.span, quickly=True)
    parts.audit.page_viewed(
        access_of(request).origin, viewer, "events", wanted=wanted.described(), rows=len(page.lines)
    )

    def link(to: Any) -> str | None:
        if to is None:
            return None
        return "?" + urlencode([*wanted.parameters(), ("cursor", parts.cursors.write(to, viewer, wanted))])

    return render(
        request,
        "events.html",
        **{
            **_context(viewer, wanted),
            "page": page,
            "histogram": histogram,
            "older": link(page.older),
            "newer": link(page.newer),
        },
    )


@router.get("/histogram")
def histogram(request: Request, viewer: Who, parts: Shared) -> Response:
    """The histogram alone, where it took too long to stand on the list from the start."""
    wanted = EventFilter.read(request.query_params.multi_items())
    found = parts.store.histogram(viewer, wanted, span=wanted.time.span(parts.clock()))
    return render(request, "_histogram.html", **{**_context(viewer, wanted), "histogram": found})


@router.get("/events/{id}")
def event(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:  # noqa: A002 - the public name
    """All of one event."""
    found = parts.store.events(viewer, id)
    parts.audit.page_viewed(access_of(request).origin, viewer, "event", wanted={"id": str(id)}, rows=len(found))
    if not found:
        raise HTTPException(404, "there is no such event, or it is not for you to see")
    return render(request, "event.html", viewer=viewer, events=found, **_times(request))


@router.get("/tail")
def tail(request: Request, viewer: Who, parts: Shared, mark: str | None = None) -> Response:
    """What was ingested since a mark: a part of the list, for a page that asks again and again."""
    wanted = EventFilter.read(request.query_params.multi_items())
    since = None if mark is None else parts.cursors.read_mark(mark, viewer, wanted)
    arrivals = parts.store.arrivals(viewer, wanted, mark=since, now=parts.clock())
    if mark is None:
        # The polls that follow are part of the same look.
        origin = access_of(request).origin
        parts.audit.page_viewed(origin, viewer, "tail", wanted=wanted.described(), rows=len(arrivals.lines))
    text = parts.cursors.write_mark(arrivals.mark, viewer, wanted)
    again = "/tail?" + urlencode([*wanted.parameters(), ("mark", text)])
    return render(request, "tail.html", **_context(viewer, wanted), arrivals=arrivals, again=again)


@router.get("/exports")
def exports(request: Request, viewer: Who, parts: Shared) -> Response:
    """The latest exports."""
    jobs = export_routes.exports_of(request, parts, viewer).jobs()
    parts.audit.page_viewed(access_of(request).origin, viewer, "exports", wanted={}, rows=len(jobs))
    return render(request, "exports.html", viewer=viewer, jobs=jobs, **_times(request))


@router.post("/exports")
def request_export(
    request: Request,
    viewer: Who,
    parts: Shared,
    query: Annotated[str, Form(max_length=8000)] = "",
    format: Annotated[ExportFormat, Form()] = "csv",  # noqa: A002 - the name of the field
) -> Response:
    """Export what the list shows."""
    job = export_routes.request_export(request, parts, viewer, query, format)
    return RedirectResponse(f"/exports#export-{job.id}", status_code=303)


@router.get("/exports/{id}")
def export(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:  # noqa: A002 - the public name
    """One export and how far it is: a part of the list, for a page that asks again and again."""
    job = export_routes.found_job(export_routes.exports_of(request, parts, viewer), id)
    return render(request, "_export.html", viewer=viewer, job=job, **_times(request))


@router.post("/exports/{id}/cancel")
def cancel_export(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:  # noqa: A002
    """Stop an export."""
    export_routes.cancel_export(request, parts, viewer, id)
    return RedirectResponse(f"/exports#export-{id}", status_code=303)


@router.get("/exports/{id}/file")
def download(request: Request, viewer: Who, parts: Shared, id: UUID, name: str | None = None) -> Response:  # noqa: A002
    """A file of a finished export: its events, its manifest, or the manifest's signature."""
    return export_routes.download(request, parts, viewer, id, name)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page; every page knows who looks."""
    access = access_of(request)
    shared = {
        "access": access,
        "form_token": access.form_token,
        "me": access.viewer,
        "has_exports": parts_of(request).exports is not None,
    }
    return _templates.TemplateResponse(request, template, {**shared, **context}, status_code=status)


def error_page(request: Request, status: int, detail: str) -> Response:
    """What somebody reads whose request failed."""
    return render(request, "error.html", status=status, code=status, detail=detail)


def _times(request: Request) -> dict[str, Any]:
    """The zone in which a page without a filter shows times."""
    wanted = EventFilter.read([pair for pair in request.query_params.multi_items() if pair[0] == "tz"])
    return {"wanted": wanted, "zone": wanted.display_zone}


def _context(viewer: Viewer, wanted: EventFilter, *, error: FilterError | None = None) -> dict[str, Any]:
    return {
        "viewer": viewer,
        "wanted": wanted,
        "zone": wanted.display_zone,
        "presets": list(PRESETS),
        "catalog": catalog(),
        "error": error,
        "page": None,
        "histogram": None,
        "older": None,
        "newer": None,
    }


def _changed(wanted: EventFilter, **changes: object) -> str:
    """The URL of the list with the filter changed; by the names of its attributes."""
    query = wanted.with_(**changes).query()
    return f"/events?{query}" if query else "/events"


def _between(wanted: EventFilter, start: int, end: int) -> str:
    """The URL of the list with the range of a bucket."""
    return _changed(wanted, time=time_range.TimeRange(start=start, end=end))


def _time(nanoseconds: int, zone: tzinfo) -> str:
    return time_range.shown(nanoseconds, zone)


_environment.globals.update(changed=_changed, between=_between, iso=format_timestamp)
_environment.filters.update(time=_time, thousands=lambda number: f"{number:,}")
