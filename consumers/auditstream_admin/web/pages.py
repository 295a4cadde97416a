"""The HTML pages. The URL contains the whole state of a page."""

from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.context import AppContext, Context, CurrentViewer, Exports, context_of, exports_of
from auditstream_admin.events.cursors import Cursor
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.event_store import Completeness
from auditstream_admin.web.filter_view import PRESET_NAMES, ZONES, action_tree, chips, list_url, range_name
from auditstream_admin.web.templating import templates
from auditstream_export import Format
from auditstream_schemas.catalog import catalog
from auditstream_schemas.errors import FilterError, StoreUnavailableError
from auditstream_storage import RETENTION_MONTHS

router = APIRouter()

PAGE_SIZE = 50
_templates = templates()


@router.get("/healthz")
def health() -> dict[str, bool]:
    """Whether this process responds; needs no sign-in."""
    return {"alive": True}


@router.get("/")
def home() -> Response:
    """Redirect to the list."""
    return RedirectResponse("/events", status_code=303)


@router.get("/events")
def events(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    viewer: CurrentViewer,
    context: Context,
    cursor: str | None = None,
    open: UUID | None = None,
    live: bool = False,  # noqa: FBT001, FBT002 - the same
) -> Response:
    """The list: filter, histogram, one page of events, and the open event beside it."""
    parameters = request.query_params.multi_items()
    try:
        event_filter = EventFilter.read(parameters)
        position = None if cursor is None else context.cursors.read(cursor, viewer, event_filter)
    except FilterError as error:
        valid = _without_error(parameters, error)
        return render(request, "events.html", status=400, **_list_context(viewer, valid, error=error))
    page = context.store.page(viewer, event_filter, cursor=position, size=PAGE_SIZE, now=context.clock())
    opened = () if open is None else context.store.events(viewer, open)
    origin = access_of(request).origin
    context.audit.page_viewed(origin, viewer, "events", conditions=event_filter.to_dict(), rows=len(page.lines))
    if opened:
        context.audit.page_viewed(origin, viewer, "event", conditions={"id": str(open)}, rows=len(opened))

    def link(cursor: Cursor | None) -> str | None:
        if cursor is None:
            return None
        text = context.cursors.write(cursor, viewer, event_filter)
        return f"/events?{urlencode([*event_filter.parameters(), ('cursor', text)])}"

    return render(
        request,
        "events.html",
        **{
            **_list_context(viewer, event_filter),
            "page": page,
            "histogram": context.store.histogram(viewer, event_filter, span=page.span, quickly=True),
            "older": link(page.older),
            "newer": link(page.newer),
            "is_first_page": cursor is None,
            "opened": opened,
            "open_id": str(opened[0].id) if opened else None,
            "completeness": _completeness(context),
            "months": RETENTION_MONTHS,
            "now": context.clock(),
            "live": live,
            "live_url": f"/events?{urlencode([*event_filter.parameters(), ('live', 'true')])}",
            "tail_url": f"/tail?{event_filter.query()}",
        },
    )


@router.get("/histogram")
def histogram(request: Request, viewer: CurrentViewer, context: Context) -> Response:
    """The histogram alone; the list loads it separately if counting takes long."""
    event_filter = EventFilter.read(request.query_params.multi_items())
    counts = context.store.histogram(viewer, event_filter, span=event_filter.time.span(context.clock()))
    return render(request, "_histogram.html", **{**_list_context(viewer, event_filter), "histogram": counts})


@router.get("/events/{id}")
def event(request: Request, viewer: CurrentViewer, context: Context, id: UUID) -> Response:
    """One complete event."""
    stored = context.store.events(viewer, id)
    context.audit.page_viewed(access_of(request).origin, viewer, "event", conditions={"id": str(id)}, rows=len(stored))
    if not stored:
        raise HTTPException(404, "this event does not exist, or you may not see it")
    is_panel = "hx-request" in request.headers and "hx-boosted" not in request.headers
    template = "event_panel.html" if is_panel else "event.html"
    return render(request, template, section="events", events=stored, **_zone(request))


@router.get("/tail")
def tail(request: Request, viewer: CurrentViewer, context: Context, mark: str | None = None) -> Response:
    """The events ingested since a mark: table rows for the live list, which polls this route."""
    event_filter = EventFilter.read(request.query_params.multi_items())
    since = None if mark is None else context.cursors.read_mark(mark, viewer, event_filter)
    arrivals = context.store.arrivals(viewer, event_filter, mark=since, now=context.clock())
    if mark is None:
        # One audit event per live list, not one per poll.
        origin = access_of(request).origin
        context.audit.page_viewed(origin, viewer, "tail", conditions=event_filter.to_dict(), rows=len(arrivals.lines))
    text = context.cursors.write_mark(arrivals.mark, viewer, event_filter)
    next_url = f"/tail?{urlencode([*event_filter.parameters(), ('mark', text)])}"
    return render(request, "tail.html", **_list_context(viewer, event_filter), arrivals=arrivals, next_url=next_url)


@router.get("/exports")
def exports(request: Request, viewer: CurrentViewer, context: Context) -> Response:
    """The latest exports."""
    jobs = [] if context.exports is None else exports_of(request, viewer, context).jobs()
    context.audit.page_viewed(access_of(request).origin, viewer, "exports", conditions={}, rows=len(jobs))
    return render(request, "exports.html", section="exports", jobs=jobs, **_zone(request))


@router.post("/exports")
def request_export(
    exports: Exports,
    context: Context,
    query: Annotated[str, Form(max_length=8000)] = "",
    format: Annotated[Format, Form()] = "csv",
) -> Response:
    """Request an export of the listed events."""
    job = exports.request(query, format, context.clock())
    return RedirectResponse(f"/exports#export-{job.id}", status_code=303)


@router.get("/exports/{id}")
def export(request: Request, exports: Exports, id: UUID) -> Response:
    """One export: a table row, which polls this route until the export has ended."""
    return render(request, "_export.html", job=exports.job(id), **_zone(request))


@router.post("/exports/{id}/cancel")
def cancel_export(exports: Exports, id: UUID) -> Response:
    """Cancel an export."""
    exports.cancel(id)
    return RedirectResponse(f"/exports#export-{id}", status_code=303)


@router.get("/exports/{id}/file")
def download(exports: Exports, id: UUID, name: str | None = None) -> Response:
    """A file of a finished export: its events, its manifest, or the manifest's signature."""
    return exports.download(id, name)


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a template; every template gets the viewer."""
    access = access_of(request)
    shared = {
        "access": access,
        "form_token": access.form_token,
        "section": "",
        "me": access.viewer,
        "has_exports": context_of(request).exports is not None,
    }
    return _templates.TemplateResponse(request, template, {**shared, **values}, status_code=status)


def error_page(request: Request, status: int, detail: str) -> Response:
    """The page for a failed request."""
    heading, advice = _HEADINGS.get(status, _HEADINGS[500 if status >= 500 else 400])
    return render(request, "error.html", status=status, code=status, heading=heading, detail=detail, advice=advice)


_HEADINGS = {
    400: ("Invalid request", "Go back and correct it, or start again from the events."),
    403: ("Not allowed", "If you need access, ask the person who assigns roles in your organisation."),
    404: ("Not found", "The address may be incomplete, or the retention period of the event is over."),
    409: ("Not possible now", None),
    500: ("Internal error", "Try again. If the error persists, report the request id below to the operator."),
    501: ("Not configured", None),
    503: ("Events not available", "No event is lost; the database does not respond. Try again in a minute."),
}
"""Heading and advice of the error page, by HTTP status."""


def _zone(request: Request) -> dict[str, Any]:
    """The time zone of a page without a filter."""
    event_filter = EventFilter.read([pair for pair in request.query_params.multi_items() if pair[0] == "tz"])
    return {"event_filter": event_filter, "zone": event_filter.display_zone}


def _completeness(context: AppContext) -> Completeness | None:
    try:
        return context.store.completeness()
    except StoreUnavailableError:
        return None


def _without_error(parameters: list[tuple[str, str]], error: FilterError) -> EventFilter:
    """The filter without the malformed parameter."""
    dropped = {"from", "to"} if error.parameter in {"from", "to"} else {error.parameter}
    try:
        return EventFilter.read([pair for pair in parameters if pair[0] not in dropped])
    except FilterError:
        return EventFilter()


_LABELS = {"range": "Time range", "tz": "Time zone", "meta": "Metadata", "q": "Payload", "cursor": "Page of the list"}
"""Labels of parameters with unclear names."""


def _list_context(viewer: Viewer, event_filter: EventFilter, *, error: FilterError | None = None) -> dict[str, Any]:
    actions = [(name, entry.description) for name, entry in catalog().items()]
    tree, other_globs = action_tree(actions, event_filter.actions)
    zone = event_filter.display_zone
    return {
        "section": "events",
        "event_filter": event_filter,
        "zone": zone,
        "presets": PRESET_NAMES,
        "zones": ZONES,
        "tree": tree,
        "other_globs": other_globs,
        "chips": chips(event_filter, zone),
        "cleared": list_url(EventFilter(zone=event_filter.zone)),
        "range_label": range_name(event_filter.time, zone),
        "show_scope": viewer.sees_all or len(viewer.scopes) > 1,
        "error": error,
        "error_label": "" if error is None else _LABELS.get(error.parameter, error.parameter.title()),
        "page": None,
        "open_id": None,
        "live": False,
    }
