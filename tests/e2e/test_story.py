"""Tasks that people do on the page, in a browser."""

import gzip
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from playwright.sync_api import Page, expect

from auditstream_export.verify import make_key, verify_export
from auditstream_ops.deploy.topics import TopicPlan, create_topics
from auditstream_schemas.event import AuditEvent, Entity
from tests.e2e.conftest import Sites, odd_events
from tests.e2e.test_looks import ACME, PICTURES, serious
from tests.support.admin import AUDITOR, MemoryExports
from tests.support.events import make_event
from tests.support.export_jobs import job_environment, job_settings
from tests.support.fix_browser import NARROW, NewPage
from tests.support.fix_stack import Tenant
from tests.support.pipeline import end, put_events, run_sink, sink_settings, start_command
from tests.support.stored_events import clear, store

# One worker runs all browser tests: they share databases of a million events.
pytestmark = pytest.mark.xdist_group("browser")


def _count(page: Page) -> int:
    return int(page.locator(".sum .big").inner_text().replace(",", ""))


def _address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def request_topic(tenant: Tenant) -> Iterator[str]:
    settings = sink_settings(tenant)
    topic = job_settings(tenant, "").requests
    create_topics(settings, TopicPlan(), dead_letter_topic=tenant.dlq_topic, request_topic=topic)
    yield topic
    admin = AdminClient(settings.librdkafka_client("tests"))
    admin.delete_topics([topic])[topic].result(30)


@pytest.mark.usefixtures("request_topic")
def test_sign_in_filter_zoom_open_pivot_export_verify_and_find_it_in_the_log(
    tenant: Tenant, new_page: NewPage, tmp_path: Path
) -> None:
    # Two busy hours, three days apart; the test looks for events of the second.
    late = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
    first = [make_event(number, occurred_at=late - timedelta(days=3, minutes=number)) for number in range(30)]
    second = [make_event(number, occurred_at=late + timedelta(minutes=number)) for number in range(30, 60)]
    put_events(tenant, [*first, *second])
    run_sink(tenant)
    seen = [event for event in (*first, *second) if event.scope and event.scope.id != "org-2"]
    target, key = tmp_path / "exports", make_key(tmp_path / "key.pem")
    environment = {**job_environment(tenant, target), "AUDITSTREAM_ADMIN_ADDRESS": "127.0.0.1:0"}
    with ending(start_command(tenant, "admin", **environment)) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        page = new_page(url)
        page.goto("/events?success=true")
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / "sign-in-1440-light.png")
        assert serious(page) == []
        _sign_in(page, "org-0, org-1")
        expect(page.locator(".subtitle")).to_contain_text("Complete up to")
        assert _count(page) == len([event for event in seen if event.success])

        _choose_actions(page)
        matching = [
            event for event in seen if event.success and event.action in {"user.logged_in", "project.env_var.delete"}
        ]
        assert _count(page) == len(matching)
        _zoom_into_the_last_bar(page)
        zoomed = [event for event in matching if event in second]
        expect(page.locator("#rows .row")).to_have_count(len(zoomed))
        _open_and_pivot(page, max(zoomed, key=lambda event: event.occurred_at), seen)

        file = _export(page, tenant, target, key_file=tmp_path / "key.pem", downloads=tmp_path)
        checked = verify_export(file, trusted=[key])
        assert checked.is_sound
        assert checked.signature.state == "trusted"
        rows = gzip.decompress(file.read_bytes()).splitlines()
        assert sorted(json.loads(row)["id"] for row in rows) == sorted(str(event.id) for event in zoomed)

        # The actions on the page are audit events on the topic, and the sink stores them.
        _until_stored(tenant, "audit_log.export.download")
        page.goto("/events?action=audit_log.export.*")
        actions = page.locator("#rows .row .c-action").all_inner_texts()
        assert {text.rpartition(".")[2] for text in actions} >= {"request", "finish", "download"}

        status = page.evaluate("async path => (await fetch(path)).status", _download_path(page))
        assert status == 200
        other = new_page(url)
        other.goto("/exports")
        _sign_in(other, "org-2")
        expect(other.get_by_role("heading", name="No exports yet")).to_be_visible()
        assert other.evaluate("async path => (await fetch(path)).status", _download_path(page)) == 404

        page.locator(".who > summary").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def _sign_in(page: Page, scopes: str) -> None:
    page.get_by_role("textbox", name="Organisations").fill(scopes)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".top nav")).to_be_visible()


def _choose_actions(page: Page) -> None:
    page.locator("#m-action > summary").click()
    page.get_by_label("Find an action").fill("logged_in")
    page.get_by_role("checkbox", name="logged_in").check()
    page.get_by_label("Or a pattern").fill("*.delete")
    page.locator("#m-action").get_by_role("button", name="Apply").click()
    expect(page.locator(".chips")).to_contain_text("*.delete")
    assert _address(page)["action"] == ["user.logged_in", "*.delete"]


def _zoom_into_the_last_bar(page: Page) -> None:
    bars = page.locator("[data-histogram] a")
    assert bars.count() == 2
    bars.last.focus()
    expect(page.locator("[data-readout]")).to_contain_text("event")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("from="))


def _open_and_pivot(page: Page, newest: AuditEvent, seen: Sequence[AuditEvent]) -> None:
    """Open the newest event, list the other events of its actor, and go back."""
    page.locator("#rows .row").first.click()
    panel = page.get_by_role("complementary", name="Event")
    expect(panel.get_by_role("heading", level=2)).to_be_visible()
    expect(panel).to_contain_text(str(newest.id))
    assert _address(page)["open"] == [str(newest.id)]
    panel.get_by_role("link", name="Same actor").click()
    expect(page.locator(".chips")).to_contain_text(newest.actor.id)
    assert _count(page) == len([event for event in seen if event.actor.id == newest.actor.id])
    page.go_back()
    expect(page.locator(".chips")).to_contain_text("*.delete")


def _export(page: Page, tenant: Tenant, target: Path, *, key_file: Path, downloads: Path) -> Path:
    """Export the listed events, wait until it is finished, and download file, manifest and signature."""
    page.locator(".title-end summary").click()
    page.get_by_label("NDJSON").check()
    page.locator(".title-end").get_by_role("button", name="Export").click()
    page.wait_for_url(re.compile("/exports#export-"))
    row = page.locator("tr[id^=export-]")
    expect(row).to_contain_text("Waiting for a worker")
    environment = {**job_environment(tenant, target), "AUDITSTREAM_EXPORT_KEY_FILE": str(key_file)}
    with ending(start_command(tenant, "exporter", **environment)) as process:
        expect(row).to_contain_text("Finished", timeout=30_000)
        code, _, errors = end(process)
        assert code == 0, errors
    files = []
    for name in ("Download", "Manifest", "Signature"):
        with page.expect_download() as download:
            row.get_by_role("link", name=name).click()
        files.append(downloads / download.value.suggested_filename)
        download.value.save_as(files[-1])
    return files[0]


def _download_path(page: Page) -> str:
    """Path of the first download link on the page of exports."""
    if urlsplit(page.url).path != "/exports":
        page.goto("/exports")
    return str(page.get_by_role("link", name="Download").get_attribute("href"))


def _until_stored(tenant: Tenant, action: str) -> None:
    """Run the sink until an event with this action is stored; the page emits in the background."""
    deadline = time.monotonic() + 30
    client = tenant.administrator()
    question = f"SELECT count() FROM {tenant.database}.events WHERE action = {{action:String}}"
    while not client.query(question, parameters={"action": action}).result_rows[0][0]:
        assert time.monotonic() < deadline, f"no {action} was emitted"
        run_sink(tenant)
    client.close()


def test_an_export_is_requested_shows_progress_and_is_downloaded(sites: Sites, new_page: NewPage) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME))
    page.goto("/events?success=false&action=context.*")
    page.locator(".title-end summary").click()
    page.get_by_label("NDJSON").check()
    exports: MemoryExports = sites.many.exports
    before = set(exports.stored)
    page.locator(".title-end").get_by_role("button", name="Export").click()
    page.wait_for_url(re.compile("/exports#export-"))
    (id,) = set(exports.stored) - before
    job = exports.stored[id]
    assert (job.output_format.format, job.label) == ("ndjson", "action=context.%2A&success=false")
    row = page.locator(f"#export-{id}")
    expect(row).to_contain_text("Waiting for a worker")
    exports.stored[id] = replace(job, state="running", rows=2_500, total=40_000, rate=1250.0)
    expect(row).to_contain_text("2,500 of 40,000 events, 1,250 per second, 30 s left")
    exports.finish(job, b'{"action":"context.create"}\n')
    with page.expect_download() as download:
        row.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == b'{"action":"context.create"}\n'


def test_keyboard_shortcuts(sites: Sites, new_page: NewPage) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME))
    page.goto("/events")
    opens = page.locator("#rows .open")
    page.keyboard.press("j")
    expect(opens.nth(0)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(opens.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#panel .action")).to_be_focused()
    expect(page.locator(".row.is-open .open")).to_have_attribute("href", str(opens.nth(1).get_attribute("href")))
    page.keyboard.press("j")
    expect(page.locator("#rows .row").nth(2)).to_have_class(re.compile("is-open"))
    page.keyboard.press("Escape")
    expect(page.locator("#panel .event")).to_have_count(0)
    expect(opens.nth(2)).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Words in the payload")).to_be_focused()
    page.keyboard.type("DEPLOY_KEY")
    page.keyboard.press("Enter")
    expect(page.locator(".chips")).to_contain_text("DEPLOY_KEY")
    assert _address(page) == {"q": ["DEPLOY_KEY"]}
    page.goto("/events")
    newest = opens.first.get_attribute("href")
    page.keyboard.press("]")
    page.wait_for_url(re.compile("cursor="))
    page.keyboard.press("[")
    expect(opens.first).to_have_attribute("href", str(newest))


def test_the_url_contains_the_open_event_and_its_payload_can_be_searched_and_copied(
    sites: Sites, new_page: NewPage
) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME))
    page.goto("/events?q=DEPLOY_KEY&action=project.env_var.create")
    page.locator("#rows .open").first.click()
    page.locator("#panel .event").wait_for()
    page.reload()
    panel = page.locator("#panel")
    expect(panel.locator(".event")).to_have_count(1)
    panel.get_by_placeholder("Find").fill("REST")
    expect(panel.locator("output")).to_have_text("1")
    panel.get_by_role("button", name="Copy as JSON").click()
    expect(page.locator(".toast")).to_have_text("JSON copied")
    event = AuditEvent.from_json(page.evaluate("navigator.clipboard.readText()"))
    assert event.payload == odd_events()[0].payload
    panel.get_by_role("link", name="Open as a page").click()
    expect(page.get_by_role("heading", level=1, name="project.env_var.create")).to_be_visible()
    assert urlsplit(page.url).path == f"/events/{event.id}"


def test_the_live_list_shows_each_new_event_once(
    sites: Sites, new_page: NewPage, request: pytest.FixtureRequest
) -> None:
    page = new_page(sites.none.app.url, cookie=sites.none.cookie(AUDITOR))
    page.goto("/events")
    page.locator("[data-live-switch]").click()
    expect(page.locator("[data-arrived]")).to_have_text("no new events yet")
    assert _address(page) == {"live": ["true"]}
    arrived = [
        make_event(number, id=uuid4(), occurred_at=time.time_ns(), actor=Entity(id="<i>", type="user", name="<i>x"))
        for number in (900_001, 900_002)
    ]
    settings = sites.none.settings
    request.addfinalizer(lambda: clear(settings))
    store(settings, arrived[:1])
    rows = page.locator("#arriving .row")
    expect(rows).to_have_count(1)
    store(settings, arrived)
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("<i>x")
    expect(page.locator("[data-arrived]")).to_have_text("2 since you opened this page")
    assert serious(page) == []
    page.screenshot(path=PICTURES / "live-1440-light.png")


def test_dragging_in_the_histogram_zooms_and_times_follow_the_chosen_zone(sites: Sites, new_page: NewPage) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME), zone="Asia/Tokyo")
    page.goto("/events")
    box = page.locator("[data-histogram]").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile("from=.*to="))
    span = _address(page)
    page.locator("#m-time > summary").click()
    page.get_by_label("Times are shown in").select_option("Asia/Tokyo")
    page.wait_for_url(re.compile("tz=Asia%2FTokyo"))
    assert _address(page) == {**span, "tz": ["Asia/Tokyo"]}

    # The fields of the form are local times: sent once more, they are the same instants.
    page.locator("#m-time > summary").click()
    page.locator("#m-time").get_by_role("button", name="Apply").click()
    page.wait_for_url(lambda url: "from=" in url and "Z" not in parse_qs(urlsplit(url).query)["from"][0])
    local = datetime.fromisoformat(_address(page)["from"][0] + "+09:00")
    assert local == datetime.fromisoformat(span["from"][0])


def test_filter_event_and_pages_work_without_javascript(sites: Sites, new_page: NewPage) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME), script=False, width=NARROW)
    page.goto("/events?success=false")
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Newer").click()
    page.locator("#m-who > summary").click()
    page.get_by_label("Actor", exact=True).fill("user-31")
    page.locator("#m-who").get_by_role("button", name="Apply").click()
    expect(page.locator(".chips")).to_contain_text("user-31")
    page.locator("#rows .open").first.click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.get_by_role("link", name="Same actor")).to_be_visible()
    assert json.loads(page.locator(".raw pre").text_content() or "")["actor"]["id"] == "user-31"


def test_a_malformed_filter_is_named_and_can_be_removed(sites: Sites, new_page: NewPage) -> None:
    page = new_page(sites.many.app.url, cookie=sites.many.cookie(ACME))
    page.goto("/events?tz=Mars/Olympus&success=false")
    alert = page.locator(".alert")
    expect(alert).to_contain_text("Time zone: 'Mars/Olympus' is not a time zone: write a name such as Europe/Berlin.")
    alert.get_by_role("link", name="Remove it").click()
    page.wait_for_url("/events?success=false")
    expect(page.locator(".chips")).to_contain_text("Failed")
