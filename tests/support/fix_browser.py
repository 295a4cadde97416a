"""Pytest plugin with a browser: the system's Chromium, driven by Playwright."""

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
    """Chromium, started once per session."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed; on Debian, apt install chromium")
    with sync_playwright() as playwright:
        # The sandbox needs more rights than a container has; these tests open only our own pages.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens pages, each in its own browser profile. Fails the test if a page reports an error on the console.

    Uncaught exceptions and violations of the content security policy are such errors.
    """
    contexts: list[BrowserContext] = []
    errors: list[str] = []

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
        contexts.append(context)
        if cookie is not None:
            name, _, value = cookie.partition("=")
            context.add_cookies([{"name": name, "value": value, "url": url}])
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console", lambda message: errors.append(message.text) if _is_error(message.type, message.text) else None
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert not errors


def _is_error(kind: str, text: str) -> bool:
    """Whether a console message is an error; Chromium also logs every response of 400 and more, which tests expect."""
    return kind == "error" and not text.startswith("Failed to load resource")
