"""Every statement is limited to the viewer's scopes, and no value is part of the SQL text."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.statements import EventStatement, EventStatements, Key, ShownOffset
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.errors import AdminError
from auditstream_storage import words
from tests.support.events import texts

ADMIN = Viewer(subject="a", name="a", role=Role.ADMIN, scopes=("org-1", "org-2"))
AUDITOR = Viewer(subject="b", name="b", role=Role.AUDITOR)
SPAN = TimeSpan(start=0, end=10**18)
KEY = Key(occurred_at=5, id="00000000-0000-0000-0000-000000000001", scope="org-9")


def all_of(viewer: Viewer, event_filter: EventFilter) -> dict[str, EventStatement]:
    statements = EventStatements(viewer)
    return {
        "keys": statements.keys(event_filter, SPAN, bound=1, limit=2, after=KEY, newest_first=True),
        "event": statements.event(KEY.id),
        "rows": statements.rows([KEY], whole=True),
        "estimate": statements.estimate(event_filter, SPAN),
        "buckets": statements.buckets(event_filter, SPAN, origin=0, width=1, exact=True),
        "arrived": statements.arrived(event_filter, [ShownOffset(KEY.id, 0, 3)], not_before=0, limit=5),
        "actions": statements.actions(SPAN),
    }


def test_these_tests_cover_every_statement() -> None:
    public = {name for name, _ in inspect.getmembers(EventStatements, inspect.isfunction) if not name.startswith("_")}
    assert set(all_of(ADMIN, EventFilter())) == public


def test_every_statement_of_an_admin_starts_with_their_scopes() -> None:
    for name, statement in all_of(ADMIN, EventFilter(scope="org-9", actions=("*",))).items():
        condition = re.search(r"WHERE (scope.id|scope_id) IN \{viewer_scopes:Array\(String\)\} AND (.*)", statement.sql)
        assert condition is not None, name
        assert statement.parameters["viewer_scopes"] == ["org-1", "org-2"]
        # No later condition is an alternative to it: every OR is inside parentheses.
        rest = condition[2]
        while (shorter := re.sub(r"\([^()]*\)", "", rest)) != rest:
            rest = shorter
        assert " OR " not in rest, name
        assert "UNION" not in statement.sql


def test_an_admin_needs_a_scope() -> None:
    for scopes in ((), ("",), ("org-1", "")):
        with pytest.raises(AdminError):
            Viewer(subject="a", name="a", role=Role.ADMIN, scopes=scopes)
    with pytest.raises(AdminError):
        Viewer(subject="", name="a", role=Role.AUDITOR)
    assert Viewer(subject="a", name="a", role=Role.AUDITOR, scopes=("x",)).scopes == ()


@given(
    value=texts(min_size=1).filter(lambda text: bool(text.strip()) and not text.isalnum()),
    viewer=st.sampled_from([ADMIN, AUDITOR]),
)
def test_values_are_parameters(value: str, viewer: Viewer) -> None:
    odd = f"~{value}~"
    event_filter = EventFilter(
        actions=(odd,), actor=odd, target=odd, scope=odd, request=odd, metadata=((odd, odd),), text=odd
    )
    plain = EventFilter(actions=("x",), actor="x", target="x", scope="x", request="x", metadata=(("x", "x"),), text="x")
    for name, statement in all_of(viewer, event_filter).items():
        assert odd not in statement.sql
        if not words(odd) or len(words(odd)) > 1 or not words(odd)[0].isascii():
            continue
        assert statement.sql == all_of(viewer, plain)[name].sql


def test_words_are_split_as_clickhouse_splits_them() -> None:
    assert words("Deploy-Key: eu_central 42 deploy") == ["deploy", "key", "eu", "central", "42"]
    assert words("Ångström—x  日本") == ["ångström—x", "日本"]
    assert words('"{}[]') == []
