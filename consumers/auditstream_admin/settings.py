"""What the admins' page can be told."""

import dataclasses
import ipaddress
from typing import Literal
from urllib.parse import urlsplit

from typed_settings.types import SecretStr

from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import AuditTrailSettings, ClickHouseSettings, setting

SignIn = Literal["", "oidc", "proxy", "development"]

_MIN_SECRET = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdminSettings(ClickHouseSettings, AuditTrailSettings):
    """Where the page listens, who may see it, and how often."""

    admin_address: str = setting(
        "127.0.0.1:8090", "Listen on host:port; :port is on 127.0.0.1, :0 on a free port there."
    )
    admin_url: str = setting(
        "", "The page's address as browsers have it, such as https://audit.example.com; empty: http and the address."
    )
    admin_secret: SecretStr = setting(
        SecretStr(""),
        "Signs sessions and cursors: 32 characters or more, the same for every process; empty: new at each start.",
    )
    admin_sign_in: SignIn = setting(
        "",
        "How people sign in: 'oidc', 'proxy' (a signed header), 'development' (local stack alone); empty: tokens only.",
    )
    admin_oidc_issuer: str = setting("", "Issuer; its metadata are at /.well-known/openid-configuration below it.")
    admin_oidc_client_id: str = setting("", "Id that the issuer gave this page.")
    admin_oidc_client_secret: SecretStr = setting(
        SecretStr(""), "Secret that the issuer gave; empty for a public client."
    )
    admin_oidc_scope: str = setting("openid profile email", "Scopes asked of the issuer.")
    admin_proxy_header: str = setting("X-Auth-Assertion", "Header with the proxy's JWT.")
    admin_proxy_issuer: str = setting("", "Issuer that the JWT must name.")
    admin_proxy_audience: str = setting("", "Audience that the JWT must name.")
    admin_proxy_keys: str = setting(
        "", "Where the proxy's public keys are: https URL or file of a JWK set, or a PEM file."
    )
    admin_proxy_algorithms: str = setting("RS256,ES256,EdDSA", "Signatures that are taken, separated by commas.")
    admin_role_claim: str = setting("auditstream_role", "Claim with the role or roles; dots lead into objects.")
    admin_role_admin: str = setting("admin", "Value of that claim that makes an admin.")
    admin_role_auditor: str = setting("auditor", "Value of that claim that makes an auditor.")
    admin_scopes_claim: str = setting(
        "auditstream_scopes", "Claim with the scope id or ids of an admin; dots lead into objects."
    )
    admin_session_seconds: int = setting(8 * 3600, "A session ends so long after the sign-in.")
    admin_idle_seconds: int = setting(3600, "A session ends when it was not used for so long.")
    admin_rate: str = setting("300/minute", "Requests of one viewer.")
    admin_anonymous_rate: str = setting(
        "60/minute", "Requests of one address without a session, sign-ins and wrong tokens included."
    )
    admin_trusted_proxies: str = setting("", "Addresses whose X-Forwarded-For is believed, separated by commas.")
    admin_row_policy: bool = setting(
        False,  # noqa: FBT003 - the default of a setting
        "Send each viewer's scopes to ClickHouse as the setting SQL_auditstream_scopes, for its row policies.",
    )
    admin_query_seconds: float = setting(20.0, "A query of ClickHouse that takes longer fails.")

    def checked(self) -> "AdminSettings":
        """Return the settings if they make sense together.

        Raises:
            SettingsError: A setting is missing or too weak; names it.
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
                "AUDITSTREAM_ADMIN_SIGN_IN=development lets anybody in: it is for the local stack alone, with "
                "this page and ClickHouse on a loopback address; choose oidc or proxy"
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
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
