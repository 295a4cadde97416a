"""The events about our own actions carry the configured scope type, one event for each scope."""

from uuid import UUID

import pytest
from click.testing import CliRunner

from auditstream_admin.auth.tokens import TokenStore
from auditstream_ops.cli import cli
from auditstream_ops.self_audit import TrailEmitter
from auditstream_schemas.event import AuditEvent, Entity
from auditstream_storage import AuditTrail

ANN = Entity(id="ann", type="user")
JOB = UUID(int=7)


def test_each_scope_has_an_event_of_its_own_and_none_is_one_without_a_scope() -> None:
    events: list[AuditEvent] = []
    trail = AuditTrail(events.append, scope_type="account", clock=lambda: 5)
    trail.record("audit_log.page.view", actor=ANN, payload={}, scopes=("a", "b"))
    trail.record("audit_log.page.view", actor=ANN, payload={}, scopes=())
    assert [event.scope for event in events] == [Entity(id="a", type="account"), Entity(id="b", type="account"), None]
    assert [event.target.id for event in events] == ["a", "b", "all"]
    assert {event.occurred_at for event in events} == {5}
    assert len({event.id for event in events}) == 3


def test_an_action_that_is_recorded_again_has_the_same_ids() -> None:
    events: list[AuditEvent] = []
    trail = AuditTrail(events.append, scope_type="account", clock=lambda: 5)
    for _ in range(2):
        trail.record("audit_log.export.finish", actor=ANN, payload={}, scopes=("a", "b"), id_from=(JOB, "finish 1"))
    first, second, *again = events
    assert first.id != second.id
    assert [event.id for event in again] == [first.id, second.id]


@pytest.mark.parametrize(("options", "scope_type"), [(["--scope-type", "account"], "account"), ([], "organization")])
def test_the_command_token_uses_the_configured_scope_type(
    monkeypatch: pytest.MonkeyPatch, options: list[str], scope_type: str
) -> None:
    events: list[AuditEvent] = []
    monkeypatch.setattr(TokenStore, "_write", lambda *_: None)
    monkeypatch.setattr(TrailEmitter, "__call__", lambda _, event: events.append(event))
    result = CliRunner().invoke(cli, ["token", "create", "ci", "--scope", "org-1", *options])
    assert result.exit_code == 0, result.output
    assert [event.scope for event in events] == [Entity(id="org-1", type=scope_type)]
    assert events[0].action == "audit_log.token.create"
