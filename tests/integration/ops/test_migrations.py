"""Tables that were made by an earlier version go on holding what they hold."""

from uuid import uuid4

import pytest
from typed_settings.types import SecretStr
from uuid_utils.compat import uuid7

from auditstream_ops.clickhouse import connect
from auditstream_ops.deploy import migrate as steps
from auditstream_storage.id_key import id_key
from tests.support.events import make_event
from tests.support.pipeline import put_events, run_sink, sink_settings
from tests.support.stack import Tenant
from tests.support.stored_events import store


def test_ids_stored_before_they_had_keys_are_found(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    database = f"{tenant.database}_old"
    as_administrator: dict[str, object] = {
        "clickhouse_database": database,
        "clickhouse_user": "default",
        "clickhouse_password": SecretStr(""),
        "group": f"{tenant.group}-old",
    }
    settings = sink_settings(tenant, **as_administrator)
    client = connect(settings)
    shipped = steps.migrations(database)
    monkeypatch.setattr(steps, "migrations", lambda _database: [step for step in shipped if step.version < 5])
    steps.migrate(client, database)
    events = [make_event(number, id=uuid7() if number % 2 else uuid4()) for number in range(100)]
    store(settings, events)
    monkeypatch.undo()
    assert [step.version for step in steps.migrate(client, database)] == [
        step.version for step in shipped if step.version >= 5
    ]
    put_events(tenant, [*events, make_event(100, id=uuid7())], partition=0)
    totals = run_sink(tenant, **as_administrator)
    # Their rows have no content hash, so they count as other content.
    assert (totals.conflicts, totals.stored) == (100, 1)
    keys = f"SELECT countIf(id_key = {id_key('id')}) FROM {database}.event_log"
    assert client.query(keys).result_rows == [(101,)]
    client.command(f"DROP DATABASE {database} SYNC", use_database=False)
    client.close()
