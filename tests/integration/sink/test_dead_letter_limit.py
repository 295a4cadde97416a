"""If the registry serves a wrong schema, the sink stops before the whole topic is dead-lettered."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from auditstream_schemas.codec import SCHEMA_JSON
from auditstream_schemas.registry import RegistryClient
from tests.support.events import make_event
from tests.support.fix_stack import Tenant
from tests.support.pipeline import (
    assert_balanced,
    count,
    dead_letters,
    partition_checks,
    put_events,
    run_sink,
    start_sink,
)


@contextmanager
def registry_of_one(schema: str) -> Iterator[str]:
    """A registry that answers every id with this schema."""

    class WrongRegistry(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_GET(self) -> None:
            body = json.dumps({"schema": schema}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), WrongRegistry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_wrong_schema_stops_the_sink_and_the_next_start_stores_the_rest(tenant: Tenant) -> None:
    schema = json.loads(SCHEMA_JSON)
    # Every field has its type, but in another order: only the records' bytes show that the schema is wrong.
    wrong = json.dumps({**schema, "fields": schema["fields"][::-1]})
    put_events(tenant, [make_event(number) for number in range(300)], partition=0)
    with registry_of_one(wrong) as url:
        assert RegistryClient(url).schema(1) == wrong
        process = start_sink(
            tenant,
            AUDITSTREAM_SCHEMA_REGISTRY_URL=url,
            AUDITSTREAM_FLUSH_ROWS="50",
            AUDITSTREAM_FLUSH_SECONDS="3600",
            AUDITSTREAM_DEAD_LETTER_WINDOW="200",
        )
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("dead-letter limit") == 1
    assert "150 of the last 150 records were refused, more than 50% of 200." in err
    assert "in this batch first at partition 0 offset 100" in err
    assert "AUDITSTREAM_DEAD_LETTER_LIMIT" in err
    # Two batches were within the limit; no record of the third was dead-lettered.
    assert sorted(dead_letter.offset for dead_letter in dead_letters(tenant)) == list(range(100))
    [check] = [check for check in partition_checks(tenant) if check.read]
    assert (check.last_offset, check.read, check.invalid, check.stored) == (99, 100, 100, 0)

    totals = run_sink(tenant)
    assert (totals.read, totals.stored, totals.invalid) == (200, 200, 0)
    assert count(tenant) == 200
    assert len(dead_letters(tenant)) == 100
    assert_balanced(tenant)
