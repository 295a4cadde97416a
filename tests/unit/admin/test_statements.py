"""No statement can be made that is not held to a viewer's scopes, and no value ever stands in SQL."""

import inspect
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.json_layout import laid_out
from auditstream_admin.events.statements import EventStatement, EventStatements, Key, Offsets
from auditstream_admin.events.time_range import TimeSpan
from auditstream_schemas.errors import AdminError
from auditstream_storage import words
from tests.support.events import json_objects, payload_texts, texts

ADMIN = Viewer(subject="a", name="a", role=Role.ADMIN, scopes=("org-1", "org-2"))
AUDITOR = Viewer(subject="b", name="b", role=Role.AUDITOR)
SPAN = TimeSpan(start=0, end=10**18)
KEY = Key(occurred_at=5, id="00000000-0000-0000-0000-000000000001", scope="org-9")


def all_of(viewer: Viewer, wanted: EventFilter) -> dict[str, EventStatement]:
    made = EventStatements(viewer, database="audit")
    return {
        "keys": made.keys(wanted, SPAN, bound=1, limit=2, after=KEY, newest_first=True),
        "event": made.event(KEY.id),
        "rows": made.rows([KEY], whole=True),
        "estimate": made.estimate(wanted, SPAN),
        "buckets": made.buckets(wanted, SPAN, origin=0, width=1, exact=True),
        "arrived": made.arrived(wanted, [Offsets(topic_id=KEY.id, partition=0, offset=3)], not_before=0, limit=5),
        "actions": made.actions(SPAN),
    }


def test_every_statement_there_is_is_looked_at() -> None:
    public = {name for name, _ in inspect.getmembers(EventStatements, inspect.isfunction) if not name.startswith("_")}
    assert set(all_of(ADMIN, EventFilter())) == public


def test_every_statement_for_an_admin_begins_with_their_scopes() -> None:
    for name, statement in all_of(ADMIN, EventFilter(scope="org-9", actions=("*",))).items():
        condition = re.search(r"WHERE (scope.id|scope_id) IN \{viewer_scopes:Array\(String\)\} AND (.*)", statement.sql)
        assert condition is not None, name
        assert statement.parameters["viewer_scopes"] == ["org-1", "org-2"]
        # Nothing that follows is an alternative to it: every OR is inside of parentheses.
        rest = condition[2]
        while (shorter := re.sub(r"\([^()]*\)", "", rest)) != rest:
            rest = shorter
        assert " OR " not in rest, name
        assert "UNION" not in statement.sql


def test_an_admin_of_nothing_cannot_be() -> None:
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
    wanted = EventFilter(
        actions=(odd,), actor=odd, target=odd, scope=odd, request=odd, metadata=((odd, odd),), text=odd
    )
    plain = EventFilter(actions=("x",), actor="x", target="x", scope="x", request="x", metadata=(("x", "x"),), text="x")
    for name, statement in all_of(viewer, wanted).items():
        assert odd not in statement.sql
        if not words(odd) or len(words(odd)) > 1 or not words(odd)[0].isascii():
            continue
        assert statement.sql == all_of(viewer, plain)[name].sql


def test_words_are_what_clickhouse_takes_for_one() -> None:
    assert words("Deploy-Key: eu_central 42 deploy") == ["deploy", "key", "eu", "central", "42"]
    assert words("Ångström—x  日本") == ["ångström—x", "日本"]
    assert words('"{}[]') == []


@given(payload_texts())
def test_a_payload_is_laid_out_without_being_changed(text: str) -> None:
    out = laid_out(text)
    assert json.loads(out) == json.loads(text) or "9" * 20 in text
    assert re.findall(r"[0-9]+", out) == re.findall(r"[0-9]+", text)


@given(json_objects())
def test_a_line_for_each_member(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        expected = json.dumps(value, ensure_ascii=False, indent=2)
    except ValueError:
        return
    assert laid_out(text) == expected
