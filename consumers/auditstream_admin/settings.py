"""Settings of the audit log page."""

import dataclasses
import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from typed_settings.types import SecretStr

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import AuditTrailSettings, ClickHouseSettings, setting

SignIn = Literal["", "oidc", "proxy", "development"]

SIGNATURE_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Algorithms with public keys. HMAC is not among them: it would turn the issuer's public key into a shared secret."""

_MIN_SECRET = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdminSettings(ClickHouseSettings, AuditTrailSettings):
    """Settings of the audit log page: address, sign-in, roles, limits."""

    admin_address: str = setting(
        "127.0.0.1:8090", "Address to listen on, host:port; :port means 127.0.0.1, port 0 a free port."
    )
    admin_url: str = setting(
        "", "Public address of the page, such as https://audit.example.com; empty: http and the listen address."
    )
    admin_secret: SecretStr = setting(
        SecretStr(""),
        "Signs sessions and cursors: 32 characters or more, the same for every process; empty: new at each start.",
    )
    admin_sign_in: SignIn = setting(
        "", "Sign-in: 'oidc', 'proxy' (a signed header), 'development' (local stack only); empty: API tokens only."
    )
    admin_oidc_issuer: str = setting("", "OpenID Connect issuer; serves /.well-known/openid-configuration.")
    admin_oidc_client_id: str = setting("", "Client id at the issuer.")
    admin_oidc_client_secret: SecretStr = setting(SecretStr(""), "Client secret; empty for a public client.")
    admin_oidc_scope: str = setting("openid profile email", "OpenID Connect scopes to request.")
    admin_proxy_header: str = setting("X-Auth-Assertion", "Header with the JWT of the proxy.")
    admin_proxy_issuer: str = setting("", "Required issuer (iss) of the JWT.")
    admin_proxy_audience: str = setting("", "Required audience (aud) of the JWT.")
    admin_proxy_keys: str = setting("", "Public keys of the proxy: https URL or file of a JWK set, or a PEM file.")
    admin_proxy_algorithms: str = setting("RS256,ES256,EdDSA", "Accepted signature algorithms, comma-separated.")
    admin_role_claim: str = setting("auditstream_role", "Claim with the role or roles; dots lead into objects.")
    admin_role_admin: str = setting("admin", "Value of the role claim for admins.")
    admin_role_auditor: str = setting("auditor", "Value of the role claim for auditors.")
    admin_scopes_claim: str = setting(
        "auditstream_scopes", "Claim with the scope id or ids of an admin; dots lead into objects."
    )
    admin_session_seconds: int = setting(8 * 3600, "Seconds from sign-in to the end of a session.")
    admin_idle_seconds: int = setting(3600, "Seconds without a request after which a session ends.")
    admin_rate: str = setting("300/minute", "Rate limit of one viewer.")
    admin_anonymous_rate: str = setting(
        "60/minute", "Rate limit of one address without a session, including sign-ins and rejected tokens."
    )
    admin_trusted_proxies: str = setting("", "Addresses whose X-Forwarded-For is trusted, comma-separated.")
    admin_row_policy: bool = setting(
        False,  # noqa: FBT003 - the default of a setting
        "Send the viewer's scopes to ClickHouse as the setting SQL_auditstream_scopes, for row policies.",
    )
    admin_query_seconds: float = setting(20.0, "Time limit of a ClickHouse query, seconds.")

    def checked(self) -> "AdminSettings":
        """Return the settings if they are complete and safe together.

        Raises:
            SettingsError: A setting is missing or unsafe; the message names it.
        """
        secret = str(self.admin_secret)
        if secret and len(secret) < _MIN_SECRET:
            raise SettingsError(f"AUDITSTREAM_ADMIN_SECRET has {len(secret)} characters: give {_MIN_SECRET} or more")
        needed = {
            "oidc": ("admin_oidc_issuer", "admin_oidc_client_id"),
            "proxy": ("admin_proxy_issuer", "admin_proxy_audience", "admin_proxy_keys"),
        }.get(self.admin_sign_in, ())
        missing = [f"AUDITSTREAM_{name.upper()}" for name in needed if not getattr(self, name)]
        if missing:
            raise SettingsError(f"sign-in by {self.admin_sign_in} needs {', '.join(missing)}")
        if self.admin_sign_in == "development" and not (
            is_loopback(self.address[0]) and is_loopback(urlsplit(self.clickhouse_url).hostname or "")
        ):
            raise SettingsError(
                "AUDITSTREAM_ADMIN_SIGN_IN=development lets anybody in: use it for the local stack only, with this "
                "page and ClickHouse on loopback addresses; choose oidc or proxy"
            )
        if self.admin_sign_in in {"oidc", "proxy"} and not secret:
            raise SettingsError(
                "AUDITSTREAM_ADMIN_SECRET is empty: give 32 random characters or more, the same for every process"
            )
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on.

        Raises:
            SettingsError: The address is malformed.
        """
        host, colon, port = self.admin_address.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise SettingsError(
                f"AUDITSTREAM_ADMIN_ADDRESS: was {self.admin_address!r}; write host:port, or :port for 127.0.0.1"
            )
        return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
