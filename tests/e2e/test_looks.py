"""Every page at two widths, in light and dark: no finding of axe, nothing wider than the window, a picture of each."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.exports.service import ExportJobView
from auditstream_schemas.timestamp import NANOSECONDS
from tests.e2e.conftest import Sites
from tests.support.admin import AUDITOR, Desk
from tests.support.browser import NARROW, WIDE, NewPage, Scheme

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"

SCHEMES: tuple[Scheme, ...] = ("light", "dark")

ACME = Viewer(subject="ada", name="Ada Byron", role=Role.ADMIN, scopes=("org-acme",))

# What sticks out of the window; what lies in a drawer that can be scrolled, or is closed, does not.
_TOO_WIDE = """
width => document.documentElement.scrollWidth > width
    && [...document.querySelectorAll('body *:not(.filters *, .pop, .pop *)')]
        .filter(one => one.getBoundingClientRect().right > width)
        .map(one => one.outerHTML.slice(0, 100))
"""

Act = Callable[[Page], object]


def _menu(name: str) -> Act:
    return lambda page: page.locator(f"#{name} > summary").click()


def _open_first(page: Page) -> None:
    page.locator("#rows .open").first.click()
    page.locator(".event .action").wait_for()


VIEWS: dict[str, tuple[str, str, Viewer | None, Act | None]] = {
    "many": ("many", "/events", AUDITOR, None),
    "one": ("one", "/events", ACME, None),
    "none": ("none", "/events", ACME, None),
    "no-match": ("many", "/events?action=project.*&action=user.logged_in&actor=nobody&meta=مفتاح=قيمة", ACME, None),
    "filter-error": ("many", "/events?tz=Mars/Olympus&action=context.*", ACME, None),
    "page": ("many", "/events", ACME, _open_first),
    "event": ("many", "/events?q=DEPLOY_KEY", ACME, _open_first),
    "event-odd": ("many", "/events?target=job-" + "x" * 200, ACME, _open_first),
    "time": ("many", "/events?range=7d&tz=Europe/Berlin", ACME, _menu("m-time")),
    "actions": ("many", "/events?action=context.*&action=user.logged_in", ACME, _menu("m-action")),
    "export": ("many", "/events", ACME, lambda page: page.locator(".title-end summary").click()),
    "help": ("many", "/events?success=false", ACME, lambda page: page.keyboard.press("?")),
    "exports": ("many", "/exports", ACME, None),
    "no-exports": ("none", "/exports", ACME, None),
    "missing": ("none", "/events/00000000-0000-7000-8000-000000000000", ACME, None),
    "login": ("none", "/login", None, None),
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _exports(sites: Sites) -> None:
    """Exports in every state."""
    now = sites.many.app.routes.state.parts.clock()
    base = ExportJobView(
        id=uuid4(), state="queued", scopes=("org-acme",), filter="action=project.%2A&range=90d",
        span=TimeSpan(start=now - 90 * 86_400 * NANOSECONDS, end=now), format="csv",
        requested_by="ada@acme.example", requested_at=now - 5 * NANOSECONDS,
    )  # fmt: skip
    jobs = [
        base,
        replace(
            base,
            state="running",
            rows=1_234_567,
            total=4_711_000,
            rate=61_840.0,
            remaining=56.2,
            format="ndjson",
            requested_by="نادية",
        ),
        replace(
            base,
            state="finished",
            rows=48_213,
            total=48_213,
            size=19_482_113,
            sha256="ab" * 32,
            expires_at=now,
            files=("a.csv.gz", "a.manifest.json", "a.manifest.json.sig"),
        ),
        replace(
            base,
            state="finished",
            rows=3_000_000,
            total=3_000_000,
            size=1_212_113_000,
            expires_at=now,
            files=(*(f"b-{number}.csv.gz" for number in (1, 2, 3)), "b.manifest.json", "b.manifest.json.sig"),
        ),
        replace(base, state="failed", error="the disk of the worker is full: free some, then ask again"),
        replace(base, state="cancelled", rows=17),
        replace(base, state="expired", rows=1, scopes=("org-acme", "org-東京電機"), requested_by="x" * 90),
    ]
    for number, job in reversed([*enumerate(jobs)]):
        kept = replace(job, id=uuid4(), requested_at=job.requested_at - number * 3_700 * NANOSECONDS)
        sites.many.exports.found[kept.id] = kept


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("view", VIEWS)
def test_is_fit_to_be_seen(sites: Sites, new_page: NewPage, view: str, width: int) -> None:
    site, path, viewer, act = VIEWS[view]
    desk: Desk = getattr(sites, site)
    cookie = None if viewer is None else desk.cookie(viewer)
    page = new_page(desk.app.url, cookie=cookie, width=width, height=900 if width == WIDE else 844)
    page.goto(path)
    if act is not None:
        act(page)

    PICTURES.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=PICTURES / f"{view}-{width}-{scheme}.png", animations="disabled")
        # In the dark, and at another width, the page is the same but for how its colours contrast, and what is shown.
        if scheme == "light":
            assert serious(page) == []
        elif width == WIDE:
            assert serious(page, runOnly=["color-contrast"]) == []
    too_wide = page.evaluate(
        _TOO_WIDE,
        width,
    )
    assert not too_wide


def serious(page: Page, **options: object) -> list[tuple[str, str, list[str]]]:
    """The findings of axe that keep somebody out, each with the first elements that it is about."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:4])
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
