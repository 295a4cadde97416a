"""API tokens: stored as hashes, each with a role and scopes. A token is valid until it expires or is revoked."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_schemas.errors import AdminError, DeniedError, StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import Connection

_TOKEN = re.compile(r"ast_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")
_TABLE = "{database:Identifier}.api_tokens"
_TIME = "DateTime64(3, 'UTC')"
_COLUMNS = {
    "id": "UUID",
    "name": "String",
    "role": "String",
    "scopes": "Array(String)",
    "created_at": _TIME,
    "created_by": "String",
    "expires_at": _TIME,
    "revoked_at": f"Nullable({_TIME})",
    "revoked_by": "String",
    "hash": "String",
}
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM {_TABLE} FINAL"
_UNKNOWN = "the token is unknown, has expired or was revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token without its secret, which is not stored.

    Attributes:
        id: Its id, which is part of the token.
        name: Its purpose.
        role: The role of a request with the token.
        scopes: Ids of the scopes of an admin's token; empty for an auditor's.
        created_at: Time at which the token was created.
        created_by: The person who created the token.
        expires_at: Time at which the token expires.
        revoked_at: Time at which the token was revoked; None if it was not.
        revoked_by: The person who revoked the token; empty if it was not revoked.
    """

    id: UUID
    name: str
    role: Role
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None = None
    revoked_by: str = ""

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if now < self.expires_at else "expired"


class TokenStore:
    """The tokens in ClickHouse. Safe to share between threads.

    Every method blocks on ClickHouse, and raises `StoreUnavailableError` if ClickHouse is not available.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        """Does not connect yet. Creating and revoking tokens needs a ClickHouse user that may write."""
        self._database = settings.clickhouse_database
        self._connection = Connection(
            settings, lambda text: StoreUnavailableError(f"ClickHouse is not available: {text}")
        )

    def create(
        self, *, name: str, role: Role, scopes: Sequence[str], created_by: str, expires_at: datetime
    ) -> tuple[ApiToken, str]:
        """Create a token; return its stored part, and the token itself, which cannot be shown again.

        Raises:
            AdminError: An admin's token has no scope.
        """
        id, secret = uuid4(), secrets.token_urlsafe(32)
        token = ApiToken(
            id=id,
            name=name,
            role=role,
            scopes=Viewer(subject=name or "token", name=name, role=role, scopes=tuple(scopes)).scopes,
            created_at=datetime.now(UTC),
            created_by=created_by,
            expires_at=expires_at,
        )
        self._write(token, _hash(secret))
        return token, f"ast_{id.hex}_{secret}"

    def revoke(self, id: UUID, *, revoked_by: str) -> ApiToken:
        """Make a token invalid from now on.

        Raises:
            AdminError: The token does not exist, or was revoked before.
        """
        stored = self._stored(id)
        if stored is None:
            raise AdminError(f"there is no token {id}: `auditstream token list` shows the tokens")
        token, hashed = stored
        if token.revoked_at is not None:
            raise AdminError(f"token {id} was revoked at {token.revoked_at:%Y-%m-%dT%H:%M:%SZ} by {token.revoked_by}")
        revoked = replace(token, revoked_at=datetime.now(UTC), revoked_by=revoked_by)
        self._write(revoked, hashed)
        return revoked

    def tokens(self) -> list[ApiToken]:
        """All tokens, newest first."""
        return [token for token, _ in self._rows(f"{_SELECT} ORDER BY created_at DESC, id", {})]

    def viewer(self, text: str) -> Viewer:
        """The viewer of a request with a token.

        Raises:
            DeniedError: The token is malformed, unknown, expired or revoked; the message is the same for all of these.
        """
        match = _TOKEN.match(text)
        stored = self._stored(UUID(match[1])) if match else None
        # Hashed even if no token has this id, so that both responses take the same time.
        hashed = _hash(match[2]) if match else ""
        if stored is None or not hmac.compare_digest(hashed, stored[1]):
            raise DeniedError(_UNKNOWN)
        token, _ = stored
        if token.state(datetime.now(UTC)) != "active":
            raise DeniedError(_UNKNOWN)
        return Viewer(subject=f"token:{token.id}", name=token.name, role=token.role, scopes=token.scopes)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _stored(self, id: UUID) -> tuple[ApiToken, str] | None:
        return next(iter(self._rows(f"{_SELECT} WHERE id = {{id:UUID}}", {"id": id})), None)

    def _rows(self, sql: str, parameters: Mapping[str, object]) -> list[tuple[ApiToken, str]]:
        """Tokens with their hashes."""
        with self._connection.client() as client:
            rows = client.query(sql, {"database": self._database, **parameters}, tz_mode="aware").named_results()
            return [(_token(row), row["hash"]) for row in rows]

    def _write(self, token: ApiToken, hashed: str) -> None:
        values = ", ".join(f"{{{name}:{kind}}}" for name, kind in _COLUMNS.items())
        parameters = {
            "database": self._database,
            **{name: _parameter(value) for name, value in asdict(token).items()},
            "hash": hashed,
            "changed_at": time.time_ns(),
        }
        with self._connection.client() as client:
            client.command(
                f"INSERT INTO {_TABLE} ({', '.join(_COLUMNS)}, changed_at) SELECT {values}, {{changed_at:UInt64}}",
                parameters,
            )


def _hash(secret: str) -> str:
    # A secret of 256 random bits needs no slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Mapping[str, Any]) -> ApiToken:
    values = {name: value for name, value in row.items() if name != "hash"}
    return ApiToken(**{**values, "role": Role(row["role"]), "scopes": tuple(row["scopes"])})


def _parameter(value: object) -> object:
    """The form that ClickHouse reads: an array for a tuple, seconds and three decimals for a time."""
    if isinstance(value, datetime):
        return f"{value.timestamp():.3f}"
    return list(value) if isinstance(value, tuple) else value
