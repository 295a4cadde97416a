"""The templates, and what they can call."""

import hashlib
from functools import cache
from importlib import resources

from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.stored_event import EventSummary
from auditstream_admin.events.time_range import DEFAULT_PRESET, PRESETS, TimeRange
from auditstream_admin.web import formatting
from auditstream_admin.web.chart import chart
from auditstream_admin.web.filter_view import form_time, list_url
from auditstream_admin.web.json_markup import marked
from auditstream_schemas.catalog import catalog
from auditstream_schemas.timestamp import format_timestamp

STATIC = resources.files("auditstream_admin.web").joinpath("static")


class StaticPages(StaticFiles):
    """The page's own files. Their addresses change with their content, so browsers keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file."""
        response = await super().get_response(path, scope)
        if scope["query_string"].startswith(b"v="):
            response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


@cache
def asset(name: str) -> str:
    """The address of one of the page's own files."""
    version = hashlib.sha256(STATIC.joinpath(name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={version}"


def event_url(id: str, wanted: EventFilter) -> str:
    """The address of an event, in the zone that the list has."""
    return f"/events/{id}" if wanted.zone == "UTC" else f"/events/{id}?{EventFilter(zone=wanted.zone).query()}"


def preset_url(wanted: EventFilter, name: str) -> str:
    """The list with a range that ends now."""
    return list_url(wanted, time=TimeRange(preset=name))


def between(wanted: EventFilter, start: int, end: int) -> str:
    """The list with the range of a bucket."""
    return list_url(wanted, time=TimeRange(start=start, end=end))


def templates(now: formatting.Clock) -> Jinja2Templates:
    """Read the templates.

    Args:
        now: Nanoseconds since the epoch; related events are looked for as far back as the event lies.
    """

    def pivot(event: EventSummary, wanted: EventFilter, **conditions: object) -> str:
        """The list of what is related to an event, over a range that the event is in."""
        age = now() - event.key.occurred_at
        fits = [name for name in (DEFAULT_PRESET, "90d") if PRESETS[name] > age]
        time = TimeRange(preset=fits[0] if fits else "12mo")
        return list_url(EventFilter(zone=wanted.zone, time=time), **conditions)

    environment = Environment(
        loader=FileSystemLoader(str(resources.files("auditstream_admin.web").joinpath("templates"))),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset=asset,
        between=between,
        catalog=catalog(),
        changed=list_url,
        drawn=chart,
        event_url=event_url,
        form_time=form_time,
        iso=format_timestamp,
        lapse=formatting.lapse,
        marked=marked,
        pivot=pivot,
        preset_url=preset_url,
        zone_name=formatting.zone_name,
    )
    environment.filters.update(formatting.WORDS)
    return Jinja2Templates(env=environment)
