"""``auditstream admin`` as a process: sign in, view events, and find the view as an audit event."""

import re
import signal
from datetime import UTC, datetime, timedelta

import httpx2

from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import assert_balanced, run_sink, sink_settings, start_command
from tests.support.stored_events import store


def test_a_page_view_becomes_an_event_in_the_log(tenant: Tenant) -> None:
    store(sink_settings(tenant), [make_event(0)], ingested_at=datetime.now(UTC) - timedelta(minutes=5))
    process = start_command(tenant, "admin", AUDITSTREAM_ADMIN_ADDRESS="127.0.0.1:0")
    assert process.stderr is not None
    line = process.stderr.readline()
    address = re.search(r"the audit log is at (http://127\.0\.0\.1:\d+)", line)
    assert address is not None, line
    with httpx2.Client(base_url=address[1], timeout=30) as client:
        assert client.get("/healthz").json() == {"alive": True}
        assert client.get("/events").status_code == 303
        signed_in = client.post("/login/development", data={"role": "admin", "scopes": "org-0", "next_path": "/events"})
        assert signed_in.headers["location"] == "/events"
        assert str(make_event(0).id) in client.get("/events").text
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert run_sink(tenant).stored == 2
    assert_balanced(tenant)
    again = start_command(tenant, "admin", AUDITSTREAM_ADMIN_ADDRESS="127.0.0.1:0")
    assert again.stderr is not None
    url = again.stderr.readline().split()[-1]
    with again, httpx2.Client(base_url=url, timeout=30) as client:
        client.post("/login/development", data={"role": "admin", "scopes": "org-0"})
        events = client.get("/api/v1/events", params={"action": "audit_log.*"}).json()["events"]
        assert [event["action"] for event in events] == ["audit_log.page.view", "audit_log.session.create"]
        assert events[0]["payload"] == {"page": "events", "filter": {}, "rows": 1}
        client.cookies.clear()
        client.post("/login/development", data={"role": "admin", "scopes": "org-1"})
        assert client.get("/api/v1/events", params={"action": "audit_log.*"}).json()["events"] == []
        again.kill()
