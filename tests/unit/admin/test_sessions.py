import dataclasses
from typing import Any

import pytest
from hypothesis import given

from auditstream_admin.auth.sessions import Forms, Session, Sessions
from auditstream_admin.auth.viewer import Role, Viewer, viewer_of_claims
from auditstream_admin.events.cursors import Cursor, Cursors, TailMark
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.statements import Key, ShownOffset
from auditstream_admin.events.time_range import TimeRange, TimeSpan
from auditstream_admin.settings import AdminSettings
from auditstream_admin.web.sign_in import own_path
from auditstream_schemas.errors import DeniedError, FilterError, SettingsError
from tests.support.admin import KEY
from tests.support.events import texts

ADA = Viewer(subject="ada", name="Ada", role=Role.ADMIN, scopes=("org-1",))
EVE = Viewer(subject="eve", name="Eve", role=Role.ADMIN, scopes=("org-2",))
NOW = 1_800_000_000


def sessions(**changes: Any) -> Sessions:
    return Sessions(**{"secret": KEY, "seconds": 3600, "idle_seconds": 600, "is_secure": True, **changes})


def value(header: str) -> str:
    return header.partition(";")[0].partition("=")[2]


def test_a_session_is_valid_until_it_ends() -> None:
    text = value(sessions().write(Session(viewer=ADA, began=NOW, used=NOW)))
    session = sessions().read(text, NOW + 599)
    assert session is not None
    assert session.viewer == ADA
    assert sessions().read(text, NOW + 600) is None
    renewed = sessions().renewed(session, NOW + 599)
    assert renewed is not None
    again = value(sessions().write(renewed))
    assert sessions().read(again, NOW + 1198) is not None
    assert sessions(idle_seconds=10_000).read(again, NOW + 3599) is not None
    assert sessions(idle_seconds=10_000).read(again, NOW + 3600) is None


def test_a_forged_or_broken_session_is_rejected() -> None:
    text = value(sessions().write(Session(viewer=ADA, began=NOW, used=NOW)))
    assert sessions(secret=KEY + "x").read(text, NOW) is None
    for broken in (None, "", "x", text[:-1], text[1:], text + "x", "a.b.c"):
        assert sessions().read(broken, NOW) is None
    # A value that was signed for another purpose is rejected.
    cursor = Cursors(KEY).write_mark(TailMark(offsets=(), not_before=0), ADA, EventFilter())
    assert sessions().read(cursor, NOW) is None


def test_the_cookie_is_limited_to_this_host_and_hidden_from_scripts() -> None:
    header = sessions().write(Session(viewer=ADA, began=NOW, used=NOW))
    assert header.startswith("__Host-auditstream=")
    assert header.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
    assert "Max-Age=0" in sessions().end()
    assert "Secure" not in sessions(is_secure=False).end()


def test_a_form_token_is_valid_for_its_holder_only() -> None:
    forms = Forms(KEY, seconds=100)
    token = forms.token("ada\x005")
    assert forms.is_valid(token, "ada\x005")
    assert not forms.is_valid(token, "eve\x005")
    assert not forms.is_valid(token, "ada\x006")
    assert not forms.is_valid("", "")
    assert not Forms(KEY, seconds=-1).is_valid(token, "ada\x005")


CURSOR = Cursor(
    direction="older",
    key=Key(occurred_at=5, id="00000000-0000-0000-0000-000000000001"),
    span=TimeSpan(start=1, end=9),
    bound=77,
)


def test_a_cursor_is_valid_for_one_viewer_and_one_filter() -> None:
    cursors = Cursors(KEY)
    event_filter = EventFilter(actor="x", time=TimeRange(preset="7d"))
    text = cursors.write(CURSOR, ADA, event_filter)
    assert cursors.read(text, ADA, event_filter) == CURSOR
    assert cursors.read(text, ADA, event_filter.with_(zone="Asia/Tokyo")) == CURSOR
    others: list[tuple[Viewer, EventFilter]] = [
        (EVE, event_filter),
        (dataclasses.replace(ADA, scopes=("org-1", "org-2")), event_filter),
        (dataclasses.replace(ADA, role=Role.AUDITOR), event_filter),
        (ADA, event_filter.with_(actor="y")),
        (ADA, event_filter.with_(actor=None)),
        (ADA, event_filter.with_(time=TimeRange())),
    ]
    for viewer, other in others:
        with pytest.raises(FilterError, match="start at the first page"):
            cursors.read(text, viewer, other)
    for broken in ("", "x", text[:-1], text + "x"):
        with pytest.raises(FilterError):
            cursors.read(broken, ADA, event_filter)
    with pytest.raises(FilterError):
        Cursors(KEY + "x").read(text, ADA, event_filter)
    with pytest.raises(FilterError):
        cursors.read_mark(text, ADA, event_filter)


def test_a_tail_mark_survives_its_text() -> None:
    mark = TailMark(offsets=(ShownOffset(CURSOR.key.id, 3, 2**40),), not_before=5)
    text = Cursors(KEY).write_mark(mark, ADA, EventFilter())
    assert Cursors(KEY).read_mark(text, ADA, EventFilter()) == mark


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/a\\b",
        "/\t/evil.example",
        "/a\r\nset-cookie: x=1",
        "javascript:alert(1)",
        "/login?next=/x",
        "/logout",
    ],
)
def test_a_sign_in_opens_no_other_site(text: str | None) -> None:
    assert own_path(text) == "/"


@given(texts())
def test_every_next_path_stays_on_this_page(text: str) -> None:
    path = own_path(text)
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))
    assert own_path(path) == path


def test_a_sign_in_opens_the_next_path() -> None:
    assert own_path("/events?action=a.*&q=%2F%2Fx") == "/events?action=a.*&q=%2F%2Fx"


SETTINGS = AdminSettings(admin_role_claim="realm.roles", admin_scopes_claim="https://x.example/orgs")


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"sub": "1", "realm": {"roles": ["admin"]}, "https://x.example/orgs": ["b", "a"]}, (Role.ADMIN, ("a", "b"))),
        ({"sub": "1", "realm": {"roles": "admin"}, "https://x.example/orgs": "a"}, (Role.ADMIN, ("a",))),
        ({"sub": "1", "realm": {"roles": ["admin", "auditor"]}}, (Role.AUDITOR, ())),
    ],
)
def test_claims_make_a_viewer(claims: dict[str, Any], expected: tuple[Role, tuple[str, ...]]) -> None:
    viewer = viewer_of_claims(claims, SETTINGS)
    assert (viewer.role, viewer.scopes) == expected


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": ""},
        {"sub": 7, "realm": {"roles": "auditor"}},
        {"sub": "1"},
        {"sub": "1", "realm": {"roles": ["administrator"]}},
        {"sub": "1", "realm": {"roles": {"admin": True}}},
        {"sub": "1", "realm": ["admin"]},
        {"sub": "1", "roles": ["auditor"]},
        {"sub": "1", "realm": {"roles": ["admin"]}},
        {"sub": "1", "realm": {"roles": ["admin"]}, "https://x.example/orgs": []},
        {"sub": "1", "realm": {"roles": ["admin"]}, "https://x.example/orgs": [""]},
        {"sub": "1", "realm": {"roles": ["admin"]}, "https://x.example/orgs": [7]},
        {"sub": "1", "realm": {"roles": ["admin"]}, "https://x.example/orgs": ["x"] * 201},
    ],
)
def test_incomplete_claims_are_denied(claims: dict[str, Any]) -> None:
    with pytest.raises(DeniedError):
        viewer_of_claims(claims, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"admin_secret": "short"}, "AUDITSTREAM_ADMIN_SECRET"),
        ({"admin_sign_in": "oidc", "admin_secret": KEY}, "AUDITSTREAM_ADMIN_OIDC_ISSUER"),
        ({"admin_sign_in": "proxy", "admin_secret": KEY}, "AUDITSTREAM_ADMIN_PROXY_KEYS"),
        ({"admin_sign_in": "oidc", "admin_oidc_issuer": "x", "admin_oidc_client_id": "y"}, "AUDITSTREAM_ADMIN_SECRET"),
        ({"admin_sign_in": "development", "admin_address": "0.0.0.0:80"}, "development"),
        ({"admin_sign_in": "development", "clickhouse_url": "http://db.example:8123"}, "development"),
        ({"admin_address": "80"}, "AUDITSTREAM_ADMIN_ADDRESS"),
        ({"admin_address": "[::1]:x"}, "AUDITSTREAM_ADMIN_ADDRESS"),
    ],
)
def test_unsafe_settings_are_refused(changes: dict[str, Any], named: str) -> None:
    settings = AdminSettings(**changes)
    with pytest.raises(SettingsError, match=named) as caught:
        assert settings.checked().address
    assert "short" not in str(caught.value)


def test_the_page_listens_on_loopback_by_default() -> None:
    assert AdminSettings().checked().address == ("127.0.0.1", 8090)
    assert AdminSettings(admin_address=":0").address == ("127.0.0.1", 0)
    assert AdminSettings(admin_address="[::1]:80").address == ("::1", 80)
