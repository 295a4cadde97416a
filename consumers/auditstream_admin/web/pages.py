"""The pages: HTML made on the server. What they show is in the URL."""

import time
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from auditstream_admin.auth.access import access_of, viewer_of
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.context import AppContext, parts_of
from auditstream_admin.events.completeness import Completeness
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.exports.service import ExportFormat
from auditstream_admin.web import export_routes
from auditstream_admin.web.filter_view import PRESET_NAMES, ZONES, action_tree, chips, list_url, range_name
from auditstream_admin.web.templating import templates
from auditstream_schemas.catalog import catalog
from auditstream_schemas.errors import FilterError, StoreUnavailableError
from auditstream_storage.retention import RETENTION_MONTHS

router = APIRouter()

PAGE_SIZE = 50

_templates = templates(time.time_ns)

Who = Annotated[Viewer, Depends(viewer_of)]
Shared = Annotated[AppContext, Depends(parts_of)]


@router.get("/healthz")
def health() -> dict[str, bool]:
    """Whether this process answers; the one route that says anything to nobody."""
    return {"alive": True}


@router.get("/")
def home() -> Response:
    """The list is what one comes for."""
    return RedirectResponse("/events", status_code=303)


@router.get("/events")
def events(  # noqa: PLR0917 - FastAPI gives them by name
    request: Request,
    viewer: Who,
    parts: Shared,
    cursor: str | None = None,
    open: UUID | None = None,
    live: bool = False,  # noqa: FBT001, FBT002 - the same
) -> Response:
    """The list: filter, histogram, a page of events; with an event beside it that is open."""
    given = request.query_params.multi_items()
    try:
        wanted = EventFilter.read(given)
        place = None if cursor is None else parts.cursors.read(cursor, viewer, wanted)
    except FilterError as error:
        return render(request, "events.html", status=400, **_context(viewer, _sound(given, error), error=error))
    page = parts.store.page(viewer, wanted, cursor=place, size=PAGE_SIZE, now=parts.clock())
    histogram = parts.store.histogram(viewer, wanted, span=page.span, quickly=True)
    opened = () if open is None else parts.store.events(viewer, open)
    origin = access_of(request).origin
    parts.audit.page_viewed(origin, viewer, "events", wanted=wanted.to_dict(), rows=len(page.lines))
    if opened:
        parts.audit.page_viewed(origin, viewer, "event", wanted={"id": str(open)}, rows=len(opened))

    def link(to: Any) -> str | None:
        if to is None:
            return None
        return "/events?" + urlencode([*wanted.parameters(), ("cursor", parts.cursors.write(to, viewer, wanted))])

    return render(
        request,
        "events.html",
        **{
            **_context(viewer, wanted),
            "page": page,
            "histogram": histogram,
            "older": link(page.older),
            "newer": link(page.newer),
            "cursor_given": cursor is not None,
            "opened": opened,
            "open_id": str(opened[0].id) if opened else None,
            "books": _books(parts),
            "months": RETENTION_MONTHS,
            "clock_now": parts.clock(),
            "live": live,
            "live_url": f"/events?{urlencode([*wanted.parameters(), ('live', 'true')])}",
            "tail_url": f"/tail?{wanted.query()}",
        },
    )


@router.get("/histogram")
def histogram(request: Request, viewer: Who, parts: Shared) -> Response:
    """The histogram alone, where it took too long to stand on the list from the start."""
    wanted = EventFilter.read(request.query_params.multi_items())
    found = parts.store.histogram(viewer, wanted, span=wanted.time.span(parts.clock()))
    return render(request, "_histogram.html", **{**_context(viewer, wanted), "histogram": found})


@router.get("/events/{id}")
def event(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:
    """All of one event."""
    found = parts.store.events(viewer, id)
    parts.audit.page_viewed(access_of(request).origin, viewer, "event", wanted={"id": str(id)}, rows=len(found))
    if not found:
        raise HTTPException(404, "there is no such event, or it is not for you to see")
    is_part = "hx-request" in request.headers and "hx-boosted" not in request.headers
    template = "event_panel.html" if is_part else "event.html"
    return render(request, template, section="events", viewer=viewer, events=found, **_times(request))


@router.get("/tail")
def tail(request: Request, viewer: Who, parts: Shared, mark: str | None = None) -> Response:
    """What was ingested since a mark: a part of the list, for a page that asks again and again."""
    wanted = EventFilter.read(request.query_params.multi_items())
    since = None if mark is None else parts.cursors.read_mark(mark, viewer, wanted)
    arrivals = parts.store.arrivals(viewer, wanted, mark=since, now=parts.clock())
    if mark is None:
        # The polls that follow are part of the same look.
        origin = access_of(request).origin
        parts.audit.page_viewed(origin, viewer, "tail", wanted=wanted.to_dict(), rows=len(arrivals.lines))
    text = parts.cursors.write_mark(arrivals.mark, viewer, wanted)
    again = "/tail?" + urlencode([*wanted.parameters(), ("mark", text)])
    return render(request, "tail.html", **_context(viewer, wanted), arrivals=arrivals, again=again)


@router.get("/exports")
def exports(request: Request, viewer: Who, parts: Shared) -> Response:
    """The latest exports."""
    jobs = [] if parts.exports is None else export_routes.exports_of(request, parts, viewer).jobs()
    parts.audit.page_viewed(access_of(request).origin, viewer, "exports", wanted={}, rows=len(jobs))
    return render(request, "exports.html", section="exports", viewer=viewer, jobs=jobs, **_times(request))


@router.post("/exports")
def request_export(
    request: Request,
    viewer: Who,
    parts: Shared,
    query: Annotated[str, Form(max_length=8000)] = "",
    format: Annotated[ExportFormat, Form()] = "csv",
) -> Response:
    """Export what the list shows."""
    job = export_routes.request_export(request, parts, viewer, query, format)
    return RedirectResponse(f"/exports#export-{job.id}", status_code=303)


@router.get("/exports/{id}")
def export(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:
    """One export and how far it is: a part of the list, for a page that asks again and again."""
    job = export_routes.found_job(export_routes.exports_of(request, parts, viewer), id)
    return render(request, "_export.html", viewer=viewer, job=job, **_times(request))


@router.post("/exports/{id}/cancel")
def cancel_export(request: Request, viewer: Who, parts: Shared, id: UUID) -> Response:
    """Stop an export."""
    export_routes.cancel_export(request, parts, viewer, id)
    return RedirectResponse(f"/exports#export-{id}", status_code=303)


@router.get("/exports/{id}/file")
def download(request: Request, viewer: Who, parts: Shared, id: UUID, name: str | None = None) -> Response:
    """A file of a finished export: its events, its manifest, or the manifest's signature."""
    return export_routes.download(request, parts, viewer, id, name)


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    """A page; every page knows who looks."""
    access = access_of(request)
    shared = {
        "access": access,
        "form_token": access.form_token,
        "section": "",
        "me": access.viewer,
        "has_exports": parts_of(request).exports is not None,
    }
    return _templates.TemplateResponse(request, template, {**shared, **context}, status_code=status)


def error_page(request: Request, status: int, detail: str) -> Response:
    """What somebody reads whose request failed."""
    heading, fix = _HEADINGS.get(status, _HEADINGS[500 if status >= 500 else 400])
    return render(request, "error.html", status=status, code=status, heading=heading, detail=detail, fix=fix)


_HEADINGS = {
    400: ("That cannot be read", "Go back and put it right, or begin anew."),
    403: ("Not for you", "If it should be, ask whoever gives out roles in your organisation."),
    404: ("Not here", "The address may be cut short, or the event is past the retention."),
    409: ("Not now", None),
    500: ("Something broke", "Try again. If it stays so, give the number below to whoever runs this."),
    501: ("Not set up here", None),
    503: ("The events cannot be reached", "Nothing is lost: they are stored elsewhere. Try again in a minute."),
}
"""What a status means to people, and what they can do."""


def _times(request: Request) -> dict[str, Any]:
    """The zone in which a page without a filter shows times."""
    wanted = EventFilter.read([pair for pair in request.query_params.multi_items() if pair[0] == "tz"])
    return {"wanted": wanted, "zone": wanted.display_zone}


def _books(parts: AppContext) -> Completeness | None:
    try:
        return parts.store.completeness()
    except StoreUnavailableError:
        return None


def _sound(given: list[tuple[str, str]], error: FilterError) -> EventFilter:
    """What is left of a filter without the parameter that makes no sense."""
    away = {"from", "to"} if error.parameter in {"from", "to"} else {error.parameter}
    try:
        return EventFilter.read([pair for pair in given if pair[0] not in away])
    except FilterError:
        return EventFilter()


_FAULTS = {
    "range": "Time range:",
    "from": "From:",
    "to": "To:",
    "tz": "Time zone:",
    "meta": "Metadata:",
    "q": "Payload:",
    "cursor": "This page of the list:",
}


def _context(viewer: Viewer, wanted: EventFilter, *, error: FilterError | None = None) -> dict[str, Any]:
    entries = [(name, entry.description) for name, entry in catalog().items()]
    tree, other_globs = action_tree(entries, wanted.actions)
    zone = wanted.display_zone
    return {
        "section": "events",
        "viewer": viewer,
        "wanted": wanted,
        "zone": zone,
        "presets": PRESET_NAMES,
        "zones": ZONES,
        "tree": tree,
        "other_globs": other_globs,
        "chips": chips(wanted, zone),
        "cleared": list_url(EventFilter(zone=wanted.zone)),
        "range_label": range_name(wanted.time, zone),
        "show_scope": viewer.sees_all or len(viewer.scopes) > 1,
        "error": error,
        "fault_label": "" if error is None else _FAULTS.get(error.parameter, f"{error.parameter.title()}:"),
        "page": None,
        "histogram": None,
        "older": None,
        "newer": None,
        "opened": (),
        "open_id": None,
        "live": False,
    }
