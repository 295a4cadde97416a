"""The Jinja environment: templates, functions and filters."""

import hashlib
import time
from functools import cache
from importlib import resources

from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.stored_event import EventSummary
from auditstream_admin.events.time_range import DEFAULT_PRESET, PRESETS, TimeRange
from auditstream_admin.web import formatting
from auditstream_admin.web.chart import chart
from auditstream_admin.web.filter_view import form_time, list_url
from auditstream_schemas.catalog import catalog
from auditstream_schemas.timestamp import format_timestamp

STATIC = resources.files("auditstream_admin.web").joinpath("static")


class StaticPages(StaticFiles):
    """Static files. Their URLs contain a hash of the content, so browsers may cache them forever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The response for a file."""
        response = await super().get_response(path, scope)
        if scope["query_string"].startswith(b"v="):
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


@cache
def asset(name: str) -> str:
    """The URL of a static file."""
    version = hashlib.sha256(STATIC.joinpath(name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def event_url(id: str, event_filter: EventFilter) -> str:
    """The URL of an event, in the time zone of the list."""
    query = EventFilter(zone=event_filter.zone).query()
    return f"/events/{id}?{query}" if query else f"/events/{id}"


def pivot(event: EventSummary, event_filter: EventFilter, **conditions: object) -> str:
    """The URL of the list of related events, over a preset range that includes the event."""
    age = time.time_ns() - event.key.occurred_at
    preset = next((name for name in (DEFAULT_PRESET, "90d") if PRESETS[name] > age), "12mo")
    return list_url(EventFilter(zone=event_filter.zone, time=TimeRange(preset=preset)), **conditions)


def templates() -> Jinja2Templates:
    """Load the templates."""
    environment = Environment(
        loader=PackageLoader("auditstream_admin.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        TimeRange=TimeRange,
        asset=asset,
        catalog=catalog(),
        changed=list_url,
        chart_of=chart,
        event_url=event_url,
        form_time=form_time,
        iso=format_timestamp,
        lapse=formatting.lapse,
        marked=formatting.marked,
        pivot=pivot,
        zone_name=formatting.zone_name,
    )
    environment.filters.update(formatting.FILTERS)
    return Jinja2Templates(env=environment)
