"""Every page at two widths, in light and dark: no axe violation, no overflow, and a screenshot of each."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_export import ExportFilter, ExportRequest, JobFile, OutputFormat
from auditstream_schemas.event import Entity
from auditstream_schemas.timestamp import NANOSECONDS
from tests.e2e.conftest import Sites
from tests.support.admin import AUDITOR, AdminPage, new_job
from tests.support.fix_browser import NARROW, WIDE, NewPage, Scheme

# One worker runs all browser tests: they share databases of a million events.
pytestmark = pytest.mark.xdist_group("browser")

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"

SCHEMES: tuple[Scheme, ...] = ("light", "dark")

ACME = Viewer(subject="ada", name="Ada Byron", role=Role.ADMIN, scopes=("org-acme",))

# Elements that overflow the window; the contents of scrollable and closed menus do not count.
_TOO_WIDE = """
width => document.documentElement.scrollWidth > width
    && [...document.querySelectorAll('body *:not(.filters *, .pop, .pop *)')]
        .filter(element => element.getBoundingClientRect().right > width)
        .map(element => element.outerHTML.slice(0, 100))
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
    now = sites.many.app.routes.state.context.clock()
    base = replace(
        new_job(
            ExportRequest(start=now - 90 * 86_400 * NANOSECONDS, end=now, filter=ExportFilter(scopes=("org-acme",))),
            requester=Entity(id="ada@acme.example", type="user"),
            label="action=project.%2A&range=90d",
            output_format=OutputFormat(),
        ),
        requested_at=now - 5 * NANOSECONDS,
    )
    both = replace(base.request, filter=ExportFilter(scopes=("org-acme", "org-東京電機")))
    jobs = [
        base,
        replace(
            base,
            state="running",
            rows=1_234_567,
            total=4_711_000,
            rate=61_840.0,
            output_format=OutputFormat(format="ndjson"),
            requester=Entity(id="نادية", type="user"),
        ),
        replace(base, state="finished", rows=48_213, total=48_213, expires_at=now, **_files("a", [19_482_113])),
        replace(
            base, state="finished", rows=3_000_000, total=3_000_000, expires_at=now, **_files("b", [404_037_667] * 3)
        ),
        replace(base, state="failed", error="the disk of the worker is full: free some, then ask again"),
        replace(base, state="cancelled", rows=17),
        replace(base, state="expired", rows=1, request=both, requester=Entity(id="x" * 90, type="user")),
    ]
    for number, job in reversed([*enumerate(jobs)]):
        other = replace(job, id=uuid4(), requested_at=job.requested_at - number * 3_700 * NANOSECONDS)
        sites.many.exports.stored[other.id] = other


def _files(name: str, sizes: list[int]) -> dict[str, Any]:
    """The files of a finished export, with its manifest and the signature."""
    files = {f"{name}-{number}.csv.gz": size for number, size in enumerate(sizes)}
    files |= {f"{name}.manifest.json": 900, f"{name}.manifest.json.sig": 64}
    return {
        "files": tuple(JobFile(name=file, rows=1, bytes=size, sha256="ab" * 32) for file, size in files.items()),
        "manifest": f"{name}.manifest.json",
    }


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("view", VIEWS)
def test_a_page_is_accessible_and_fits_the_window(sites: Sites, new_page: NewPage, view: str, width: int) -> None:
    site, path, viewer, act = VIEWS[view]
    admin_page: AdminPage = getattr(sites, site)
    cookie = None if viewer is None else admin_page.cookie(viewer)
    page = new_page(admin_page.app.url, cookie=cookie, width=width, height=900 if width == WIDE else 844)
    page.goto(path)
    if act is not None:
        act(page)

    PICTURES.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=PICTURES / f"{view}-{width}-{scheme}.png", animations="disabled")
        # The dark scheme changes only the colours, so only the contrast is checked again.
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
    """The serious violations that axe reports, with the first elements of each."""
    violations = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        (violation["id"], violation["help"], [node["html"][:200] for node in violation["nodes"]][:4])
        for violation in violations
        if violation["impact"] in {"serious", "critical"}
    ]
