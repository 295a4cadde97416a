"""A small OpenID Connect provider over HTTP: authorization code with PKCE, tokens signed by joserfc."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT_ID = "auditstream"
CLIENT_PASSWORD = "client secret"  # noqa: S105 - of a test


@dataclass(kw_only=True)
class Provider:
    """A provider whose user is already signed in.

    Attributes:
        claims: Claims of the user.
        changes: Changes to the id token that make it invalid; None removes a claim.
        codes: Authorization requests by code.
        key: Signing key.
        url: Address of the provider.
    """

    claims: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}))
    url: str = ""

    def rotate(self) -> None:
        """Replace the signing key."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        own = {"iss": self.url, "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": nonce}
        claims = {**own, **self.claims, **self.changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": str(self.key.kid)}, claims, self.key)


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parameters = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/.well-known/openid-configuration":
            base = self.provider.url
            self._answer(
                {
                    "issuer": base,
                    "authorization_endpoint": f"{base}/authorize",
                    "token_endpoint": f"{base}/token",
                    "jwks_uri": f"{base}/jwks",
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            )
        elif url.path == "/jwks":
            self._answer(dict(KeySet([self.provider.key]).as_dict(private=False)))
        elif url.path == "/authorize":
            assert parameters["response_type"] == "code"
            assert parameters["code_challenge_method"] == "S256"
            assert parameters["client_id"] == CLIENT_ID
            assert "openid" in parameters["scope"].split()
            code = secrets.token_urlsafe(16)
            self.provider.codes[code] = parameters
            self.send_response(302)
            back = urlencode({"code": code, "state": parameters["state"]})
            self.send_header("location", f"{parameters['redirect_uri']}?{back}")
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        parameters = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_PASSWORD}".encode()).decode()
        request = self.provider.codes.pop(parameters.get("code", ""), None)
        if self.headers.get("authorization") != f"Basic {expected}":
            self._answer({"error": "invalid_client"}, 401)
        elif (
            request is None
            or request["redirect_uri"] != parameters["redirect_uri"]
            or _challenge(parameters.get("code_verifier", "")) != request["code_challenge"]
        ):
            self._answer({"error": "invalid_grant"}, 400)
        else:
            token = self.provider.id_token(request["nonce"])
            self._answer({"access_token": "x", "token_type": "Bearer", "expires_in": 60, "id_token": token})

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Run a provider on a free port."""
    provider = Provider()
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
