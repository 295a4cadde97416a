"""Signing in by OpenID Connect: authorization code with PKCE. Authlib speaks the protocol."""

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

from auditstream_admin.auth.signing import signed_for_a_time
from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import DeniedError, StoreUnavailableError

_TIMEOUT_SECONDS = 10.0
_FLOW_SECONDS = 600
_METADATA_SECONDS = 3600
_LEEWAY_SECONDS = 60
_SIGNATURES = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
"""Taken if the issuer says that it uses them: all by public keys, for our secret is no key of the issuer's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInBegun:
    """A sign-in under way.

    Attributes:
        url: Where the browser goes.
        state: What it is to bring back, in a cookie of ours.
    """

    url: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Provider:
    metadata: Mapping[str, Any]
    keys: KeySet
    read_at: float


class OidcSignIn:
    """Signs people in at one issuer."""

    def __init__(self, settings: AdminSettings, secret: str, redirect_url: str) -> None:
        """Nothing is asked yet; the issuer need not be there.

        Args:
            settings: The issuer, and what it knows this page by.
            secret: Signs the state of a sign-in under way.
            redirect_url: Where the issuer sends the browser back to.
        """
        self._issuer = settings.admin_oidc_issuer.rstrip("/")
        self._client_id = settings.admin_oidc_client_id
        self._client_secret = str(settings.admin_oidc_client_secret)
        self._scope = settings.admin_oidc_scope
        self._redirect_url = redirect_url
        self._states = signed_for_a_time(secret, "sign-in")
        self._provider: _Provider | None = None
        self._lock = asyncio.Lock()

    async def begin(self, onwards: str) -> SignInBegun:
        """Make the address at which somebody signs in.

        Args:
            onwards: Path of this page to go to afterwards.

        Raises:
            StoreUnavailableError: The issuer cannot be asked.
        """
        provider = await self._known()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                provider.metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return SignInBegun(url=str(url), state=str(self._states.dumps([state, nonce, verifier, onwards])))

    async def finish(self, code: str, state: str, begun: str) -> tuple[Mapping[str, Any], str]:
        """Turn what the issuer sent the browser back with into the claims of who signed in, and where to go on.

        Args:
            code: The issuer's code.
            state: The state that came with it.
            begun: What `begin` gave, from the browser's cookie.

        Raises:
            DeniedError: It is not this browser's sign-in, took too long, or the token does not hold.
            StoreUnavailableError: The issuer cannot be asked.
        """
        try:
            expected, nonce, verifier, onwards = self._states.loads(begun, max_age=_FLOW_SECONDS)
        except BadData:
            raise DeniedError("the sign-in took too long, or was begun elsewhere: begin anew") from None
        if not secrets.compare_digest(str(expected).encode(), state.encode("utf-8", "replace")):
            raise DeniedError("the sign-in was begun elsewhere: begin anew")
        provider = await self._known()
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
            raise _away(error) from error
        claims = await self._claims(dict(token), str(nonce), provider)
        return claims, str(onwards)

    async def _claims(self, token: Mapping[str, Any], nonce: str, provider: _Provider) -> Mapping[str, Any]:
        text = token.get("id_token")
        if not isinstance(text, str):
            raise DeniedError("the issuer gave no id_token: is the scope openid asked for?")
        offered = provider.metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        algorithms = sorted(_SIGNATURES & set(offered))
        try:
            try:
                found = jwt.decode(text, provider.keys, algorithms=algorithms)
            except InvalidKeyIdError:
                # The issuer has changed its keys since they were read.
                found = jwt.decode(text, (await self._known(anew=True)).keys, algorithms=algorithms)
            claims = CodeIDToken(
                found.claims,
                found.header,
                {"iss": {"essential": True, "value": self._issuer_named(provider)}, "aud": {"value": self._client_id}},
                {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            raise DeniedError(f"the issuer's token does not hold: {error}") from error
        return dict(found.claims)

    def _issuer_named(self, provider: _Provider) -> str:
        return str(provider.metadata["issuer"])

    async def _known(self, *, anew: bool = False) -> _Provider:
        """The issuer's metadata and keys, read once an hour.

        Raises:
            StoreUnavailableError: It cannot be asked, or is not the issuer that it should be.
        """
        async with self._lock:
            now = time.monotonic()
            if not anew and self._provider is not None and now < self._provider.read_at + _METADATA_SECONDS:
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
                raise _away(error) from error
            self._provider = _Provider(metadata=metadata, keys=keys, read_at=now)
            return self._provider

    def _client(self) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            client_id=self._client_id,
            client_secret=self._client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if self._client_secret else "none",
            scope=self._scope,
            redirect_uri=self._redirect_url,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
        )


def _away(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"the issuer of identities cannot be asked: {type(error).__name__}; try again")
