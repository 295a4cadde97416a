"""Sign-in by OpenID Connect: authorization code flow with PKCE, implemented by Authlib."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from itsdangerous import BadData
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from auditstream_admin.auth.sessions import signer
from auditstream_admin.settings import SIGNATURE_ALGORITHMS, AdminSettings
from auditstream_schemas.errors import DeniedError, StoreUnavailableError

_TIMEOUT_SECONDS = 10.0
_FLOW_SECONDS = 600
_METADATA_SECONDS = 3600
_LEEWAY_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Provider:
    metadata: Mapping[str, Any]
    keys: KeySet
    read_at: float


class OidcSignIn:
    """Signs viewers in at one issuer."""

    def __init__(self, settings: AdminSettings, secret: str, redirect_url: str) -> None:
        """Does not contact the issuer yet. ``secret`` signs the state of a sign-in."""
        self._settings = settings
        self._issuer = settings.admin_oidc_issuer.rstrip("/")
        self._client_id = settings.admin_oidc_client_id
        self._redirect_url = redirect_url
        self._signer = signer(secret, "sign-in")
        self._provider: _Provider | None = None
        self._lock = asyncio.Lock()

    async def begin(self, next_path: str) -> tuple[str, str]:
        """Start a sign-in; return the address at the issuer and the signed state to keep in a cookie.

        Raises:
            StoreUnavailableError: The issuer cannot be reached.
        """
        provider = await self._read_provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                provider.metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url), str(self._signer.dumps([state, nonce, verifier, next_path]))

    async def finish(self, code: str, state: str, begun: str) -> tuple[Mapping[str, Any], str]:
        """Finish a sign-in: exchange the code for an id token; return its claims and the path to open next.

        ``begun`` is the signed state of `begin`, from the browser's cookie.

        Raises:
            DeniedError: Another browser started the sign-in, it took too long, or the id token is not valid.
            StoreUnavailableError: The issuer cannot be reached.
        """
        try:
            expected, nonce, verifier, next_path = self._signer.loads(begun, max_age=_FLOW_SECONDS)
        except BadData:
            raise DeniedError("the sign-in took too long or was started in another browser: sign in again") from None
        if not secrets.compare_digest(str(expected).encode(), state.encode("utf-8", "replace")):
            raise DeniedError("the sign-in was started in another browser: sign in again")
        provider = await self._read_provider()
        try:
            async with self._client() as client:
                token = await client.fetch_token(
                    provider.metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                )
        except OAuthError as error:
            raise DeniedError(f"the issuer refused the sign-in: {error.error}") from error
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        claims = await self._claims(dict(token), str(nonce), provider)
        return claims, str(next_path)

    async def _claims(self, token: Mapping[str, Any], nonce: str, provider: _Provider) -> Mapping[str, Any]:
        text = token.get("id_token")
        if not isinstance(text, str):
            raise DeniedError("the issuer sent no id_token: add openid to AUDITSTREAM_ADMIN_OIDC_SCOPE")
        offered = provider.metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        algorithms = sorted(SIGNATURE_ALGORITHMS & set(offered))
        try:
            try:
                decoded = jwt.decode(text, provider.keys, algorithms=algorithms)
            except InvalidKeyIdError:
                # The issuer has rotated its keys since they were read.
                decoded = jwt.decode(text, (await self._read_provider(refresh=True)).keys, algorithms=algorithms)
            issuer = {"essential": True, "value": str(provider.metadata["issuer"])}
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {"iss": issuer, "aud": {"value": self._client_id}},
                {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            raise DeniedError(f"the id token of the issuer is not valid: {error}") from error
        return dict(decoded.claims)

    async def _read_provider(self, *, refresh: bool = False) -> _Provider:
        """The metadata and keys of the issuer, read again after an hour.

        Raises:
            StoreUnavailableError: The issuer cannot be reached, or its metadata name another issuer.
        """
        async with self._lock:
            now = time.monotonic()
            if not refresh and self._provider is not None and now < self._provider.read_at + _METADATA_SECONDS:
                return self._provider
            try:
                async with httpx2.AsyncClient(timeout=_TIMEOUT_SECONDS) as client:
                    answer = await client.get(f"{self._issuer}/.well-known/openid-configuration")
                    answer.raise_for_status()
                    metadata: dict[str, Any] = answer.json()
                    if str(metadata.get("issuer", "")).rstrip("/") != self._issuer:
                        raise StoreUnavailableError(
                            f"the metadata of {self._issuer} name another issuer: check AUDITSTREAM_ADMIN_OIDC_ISSUER"
                        )
                    answer = await client.get(str(metadata["jwks_uri"]))
                    answer.raise_for_status()
                    keys = KeySet.import_key_set(answer.json())
            except (httpx2.HTTPError, httpx2.InvalidURL, KeyError, ValueError, JoseError) as error:
                raise _unreachable(error) from error
            self._provider = _Provider(metadata=metadata, keys=keys, read_at=now)
            return self._provider

    def _client(self) -> AsyncOAuth2Client:
        client_secret = str(self._settings.admin_oidc_client_secret)
        return AsyncOAuth2Client(
            client_id=self._client_id,
            client_secret=client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if client_secret else "none",
            scope=self._settings.admin_oidc_scope,
            redirect_uri=self._redirect_url,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
        )


def _unreachable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"the OpenID Connect issuer cannot be reached: {type(error).__name__}; try again")
