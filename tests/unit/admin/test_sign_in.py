"""Sign-in at a small OpenID Connect provider and by a proxy's assertion. These tests need no ClickHouse."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from starlette.testclient import TestClient

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import ClickHouseSettings
from tests.support.admin import AUDITOR, URL, AdminPage, admin_page
from tests.support.oidc_provider import CLIENT_ID, CLIENT_PASSWORD, Provider, running_provider

NOWHERE = ClickHouseSettings(clickhouse_url="http://127.0.0.1:9")
ADMIN = {"sub": "u-1", "name": "Ada", "auditstream_role": "admin", "auditstream_scopes": ["org-1"]}


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.claims = dict(ADMIN)
    running.changes = {}
    return running


def oidc(provider: Provider, **changes: Any) -> AdminPage:
    values = {
        "admin_sign_in": "oidc",
        "admin_oidc_issuer": provider.url,
        "admin_oidc_client_id": CLIENT_ID,
        "admin_oidc_client_secret": CLIENT_PASSWORD,
    }
    return admin_page(NOWHERE, **{**values, **changes})


def signed_in(client: TestClient, *, next_path: str = "/exports") -> httpx2.Response:
    """Sign in at the provider; return the response of the page to the redirect back."""
    begun = client.get("/login/start", params={"next": next_path})
    assert begun.status_code == 303
    back = httpx2.get(begun.headers["location"])
    assert back.status_code == 302
    assert back.headers["location"].startswith(f"{URL}/login/callback?")
    return client.get(back.headers["location"].removeprefix(URL))


def test_a_sign_in_starts_a_session_and_opens_the_next_path(provider: Provider) -> None:
    made = oidc(provider)
    with made.client() as client:
        assert client.get("/exports").headers["location"] == "/login?next=%2Fexports"
        assert "/login/start?next=%2Fexports" in client.get("/login?next=%2Fexports").text
        answer = signed_in(client)
        assert (answer.status_code, answer.headers["location"]) == (303, "/exports")
        page = client.get("/exports")
        assert page.status_code == 200
        assert "Ada" in page.text
        # The state of the sign-in is deleted: the same redirect cannot be used again.
        assert "auditstream-sign-in" not in dict(client.cookies)
    assert made.actions() == ["audit_log.session.create", "audit_log.page.view"]
    assert made.emitted[0].actor.id == "u-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"auditstream_role": "user"},
        {"auditstream_role": None},
        {"auditstream_scopes": []},
    ],
    ids=str,
)
def test_an_invalid_id_token_is_denied(provider: Provider, changes: dict[str, Any]) -> None:
    provider.changes = changes
    made = oidc(provider)
    with made.client() as client:
        answer = signed_in(client)
        assert answer.status_code == 403
        assert client.get("/exports").status_code == 303
    assert made.actions()[0] == "audit_log.access.deny"


def test_rotated_keys_are_read_again_and_foreign_keys_are_denied(provider: Provider) -> None:
    made = oidc(provider)
    with made.client() as client:
        assert signed_in(client).status_code == 303
        provider.rotate()
        assert signed_in(client).status_code == 303
        kid = str(provider.key.kid)
        provider.key = RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})
        assert signed_in(client).status_code == 403


def test_a_sign_in_of_another_browser_is_denied(provider: Provider) -> None:
    made = oidc(provider)
    with made.client() as victim, made.client() as attacker:
        begun = attacker.get("/login/start")
        back = httpx2.get(begun.headers["location"]).headers["location"].removeprefix(URL)
        assert victim.get(back).status_code == 403
        victim.get("/login/start")
        assert victim.get(back).status_code == 403
        state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
        assert attacker.get("/login/callback", params={"code": "made up", "state": state}).status_code == 403
        assert attacker.get("/login/callback", params={"error": "<script>", "state": state}).status_code == 403


def test_an_unreachable_provider_is_reported(provider: Provider) -> None:
    made = oidc(provider, admin_oidc_issuer="http://127.0.0.1:9")
    with made.client() as client:
        assert client.get("/login/start").status_code == 503
    another = oidc(provider, admin_oidc_issuer=f"{provider.url}/")
    with another.client() as client:
        assert client.get("/login/start").status_code == 303


def test_the_development_sign_in_is_off_by_default(provider: Provider) -> None:
    for made in (oidc(provider), admin_page(NOWHERE)):
        with made.client() as client:
            answer = client.post("/login/development", data={"role": "auditor"})
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers
    with admin_page(NOWHERE, admin_sign_in="development").client() as client:
        cross = client.post("/login/development", data={"role": "auditor"}, headers={"origin": "https://evil.example"})
        assert cross.status_code == 403
        answer = client.post("/login/development", data={"role": "admin", "scopes": "org-1, org-2", "next_path": "//x"})
        assert answer.headers["location"] == "/"
        page = client.get("/exports").text
        assert all(f"<bdi>{scope}</bdi>" in page for scope in ("org-1", "org-2"))


EC = ECKey.generate_key("P-256", {"kid": "proxy"})


def assertion(key: Any = EC, *, alg: str = "ES256", kid: str = "proxy", **changes: Any) -> str:
    own = {"iss": "https://proxy.example", "aud": "auditstream", "exp": int(time.time()) + 60, **ADMIN}
    claims = {name: value for name, value in {**own, **changes}.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": kid}, claims, key, algorithms=[alg])


@pytest.fixture
def proxied(tmp_path: Path) -> AdminPage:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(KeySet([EC]).as_dict(private=False)))
    return proxy(keys)


def proxy(keys: Path | str) -> AdminPage:
    return admin_page(
        NOWHERE,
        admin_sign_in="proxy",
        admin_proxy_keys=str(keys),
        admin_proxy_issuer="https://proxy.example",
        admin_proxy_audience="auditstream",
        admin_proxy_header="X-Assertion",
    )


def test_a_valid_assertion_is_accepted(proxied: AdminPage) -> None:
    with proxied.client() as client:
        page = client.get("/exports", headers={"X-Assertion": assertion()})
        assert page.status_code == 200
        assert "Sign out" not in page.text
        form = page.text.partition('name="csrf-token" content="')[2].partition('"')[0]
        headers = {"X-Assertion": assertion()}
        assert client.post("/exports", data={"query": ""}, headers=headers).status_code == 403
        assert client.post("/exports", data={"query": "", "csrf": form}, headers=headers).status_code == 303
        other = {"X-Assertion": assertion(sub="u-2")}
        assert client.post("/exports", data={"query": "", "csrf": form}, headers=other).status_code == 403


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b.c",
        assertion(aud="another"),
        assertion(aud=None),
        assertion(iss="https://evil.example"),
        assertion(iss=None),
        assertion(exp=int(time.time()) - 60),
        assertion(exp=None),
        assertion(nbf=int(time.time()) + 600),
        assertion(sub=None),
        assertion(auditstream_role="user"),
        assertion(ECKey.generate_key("P-256", {"kid": "proxy"})),
        assertion(kid="another"),
        assertion(OctKey.import_key("a key that both sides would have to share"), alg="HS256"),
        assertion().rpartition(".")[0] + ".",
        "eyJhbGciOiJub25lIn0." + assertion().split(".")[1] + ".",
    ],
)
def test_an_invalid_assertion_is_denied(proxied: AdminPage, text: str) -> None:
    with proxied.client() as client:
        answer = client.get("/api/v1/exports", headers={"X-Assertion": text})
        assert answer.status_code == 401
        assert client.get("/exports", headers={"X-Assertion": text}).status_code == 303


def test_session_cookies_are_ignored_behind_a_proxy(proxied: AdminPage) -> None:
    with proxied.client(AUDITOR) as client:
        assert client.get("/exports").status_code == 303


def test_the_proxys_keys_come_from_a_url_or_a_pem_file(provider: Provider, tmp_path: Path) -> None:
    with proxy(f"{provider.url}/jwks").client() as client:
        text = assertion(provider.key, alg="RS256", kid=str(provider.key.kid))
        assert client.get("/exports", headers={"X-Assertion": text}).status_code == 200
        assert client.get("/exports", headers={"X-Assertion": assertion()}).status_code == 303
    pem = tmp_path / "key.pem"
    pem.write_bytes(EC.as_pem(private=False))
    with proxy(pem).client() as client:
        assert client.get("/exports", headers={"X-Assertion": assertion()}).status_code == 200
    with proxy("http://127.0.0.1:9/jwks").client() as client:
        assert client.get("/exports", headers={"X-Assertion": assertion()}).status_code == 503
    for content in ("{}", "nonsense", ""):
        pem.write_text(content)
        with pytest.raises(SettingsError, match="AUDITSTREAM_ADMIN_PROXY_KEYS"):
            proxy(pem)
    with pytest.raises(SettingsError, match="ALGORITHMS"):
        admin_page(
            NOWHERE,
            admin_sign_in="proxy",
            admin_proxy_keys=str(pem),
            admin_proxy_issuer="x",
            admin_proxy_audience="y",
            admin_proxy_algorithms="HS256",
        )
