"""The pytest plugin that gives tests a browser: the system's Chromium, driven by Playwright."""

import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, NARROW = 1440, 390
_PATIENCE_MS = 10_000

Scheme = Literal["light", "dark"]
NewPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, started for the first test that asks."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed; on Debian, apt install chromium")
    with sync_playwright() as playwright:
        # Its own sandbox needs more rights than a container has; it sees pages of ours alone.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Makes pages, each in a browser profile of its own; fails the test whose page broke a rule of its own.

    What the page says on the console as an error, a script that threw and whatever the content security policy
    refused are such breaches.
    """
    made: list[BrowserContext] = []
    faults: list[str] = []

    def make(
        url: str,
        *,
        cookie: str | None = None,
        width: int = WIDE,
        height: int = 900,
        scheme: Scheme = "light",
        zone: str = "UTC",
        script: bool = True,
    ) -> Page:
        context = browser.new_context(
            base_url=url,
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            timezone_id=zone,
            locale="en-GB",
            java_script_enabled=script,
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(_PATIENCE_MS)
        made.append(context)
        if cookie is not None:
            name, _, value = cookie.partition("=")
            context.add_cookies([{"name": name, "value": value, "url": url}])
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console", lambda message: faults.append(message.text) if _is_fault(message.type, message.text) else None
        )
        return page

    yield make
    for context in made:
        context.close()
    assert not faults


def _is_fault(kind: str, text: str) -> bool:
    """Chromium also reports each answer of 400 and more there, which pages of ours give where they should."""
    return kind == "error" and not text.startswith("Failed to load resource")
