"""API tokens: stored as hashes, each with a role and scopes, valid until it expires or is revoked."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_schemas.errors import AdminError, DeniedError, StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import Connection

_TOKEN = re.compile(r"ast_([0-9a-f]{32})_([A-Za-z0-9_-]{43})\Z")
_TABLE = "{database:Identifier}.api_tokens"
_COLUMNS = "id, hash, name, role, scopes, created_at, created_by, expires_at, revoked_at, revoked_by"
_UNKNOWN = "the token is unknown, has expired or was revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """A token without its secret, which is not stored.

    Attributes:
        id: Its id, which is part of it.
        name: Its purpose.
        role: The role of a request with it.
        scopes: Ids of the scopes of an admin's token; empty for an auditor's.
        created_at: Time at which it was made.
        created_by: The person who made it.
        expires_at: Time from which it is invalid.
        revoked_at: Time at which it was revoked; None if it was not.
        revoked_by: The person who revoked it; empty if it was not.
    """

    id: UUID
    name: str
    role: Role
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    revoked_by: str

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if now < self.expires_at else "expired"

    def viewer(self) -> Viewer:
        """The viewer of a request with this token."""
        return Viewer(subject=f"token:{self.id}", name=self.name, role=self.role, scopes=self.scopes)


class TokenStore:
    """The tokens in ClickHouse. Safe to share between threads. Each method blocks on ClickHouse."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        """Send nothing yet. Making and revoking tokens needs a ClickHouse user that may write."""
        self._database = settings.clickhouse_database
        self._connection = Connection(
            settings, lambda text: StoreUnavailableError(f"ClickHouse cannot be asked: {text}")
        )

    def create(
        self, *, name: str, role: Role, scopes: Sequence[str], created_by: str, expires_at: datetime
    ) -> tuple[ApiToken, str]:
        """Make a token; return its stored part, and the token itself, which cannot be shown again.

        Raises:
            AdminError: An admin's token without a scope.
            StoreUnavailableError: ClickHouse cannot be asked.
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
            revoked_at=None,
            revoked_by="",
        )
        self._write(token, _hash(secret))
        return token, f"ast_{id.hex}_{secret}"

    def revoke(self, id: UUID, *, revoked_by: str) -> ApiToken:
        """Make a token invalid from now on.

        Raises:
            AdminError: There is no such token, or it was revoked before.
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        found = self._find(id)
        if found is None:
            raise AdminError(f"there is no token {id}: `auditstream token list` shows them")
        token, hashed = found
        if token.revoked_at is not None:
            raise AdminError(f"token {id} was revoked at {token.revoked_at:%Y-%m-%dT%H:%M:%SZ} by {token.revoked_by}")
        revoked = replace(token, revoked_at=datetime.now(UTC), revoked_by=revoked_by)
        self._write(revoked, hashed)
        return revoked

    def tokens(self) -> list[ApiToken]:
        """All tokens, newest first.

        Raises:
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        rows = self._ask(f"SELECT {_COLUMNS} FROM {_TABLE} FINAL ORDER BY created_at DESC, id", {})
        return [_token(row)[0] for row in rows]

    def viewer(self, text: str) -> Viewer:
        """The viewer that a token stands for.

        Raises:
            DeniedError: It is malformed, unknown, expired or revoked; the message does not tell which.
            StoreUnavailableError: ClickHouse cannot be asked.
        """
        match = _TOKEN.match(text)
        if match is None:
            raise DeniedError(_UNKNOWN)
        found = self._find(UUID(match[1]))
        # Hashed even if no token has this id, so that both answers take the same time.
        hashed = _hash(match[2])
        if found is None or not hmac.compare_digest(hashed, found[1]):
            raise DeniedError(_UNKNOWN)
        token = found[0]
        if token.state(datetime.now(UTC)) != "active":
            raise DeniedError(_UNKNOWN)
        return token.viewer()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _find(self, id: UUID) -> tuple[ApiToken, str] | None:
        rows = self._ask(f"SELECT {_COLUMNS} FROM {_TABLE} FINAL WHERE id = {{id:UUID}}", {"id": str(id)})
        return _token(rows[0]) if rows else None

    def _write(self, token: ApiToken, hashed: str) -> None:
        self._command(
            f"INSERT INTO {_TABLE} ({_COLUMNS}, changed_at) SELECT {{id:UUID}}, {{hash:String}}, {{name:String}},"
            " {role:String}, {scopes:Array(String)}, {created_at:DateTime64(3, 'UTC')}, {created_by:String},"
            " {expires_at:DateTime64(3, 'UTC')}, {revoked_at:Nullable(DateTime64(3, 'UTC'))}, {revoked_by:String},"
            " {changed_at:UInt64}",
            {
                "id": str(token.id),
                "hash": hashed,
                "name": token.name,
                "role": str(token.role),
                "scopes": list(token.scopes),
                "created_at": _seconds(token.created_at),
                "created_by": token.created_by,
                "expires_at": _seconds(token.expires_at),
                "revoked_at": None if token.revoked_at is None else _seconds(token.revoked_at),
                "revoked_by": token.revoked_by,
                "changed_at": time.time_ns(),
            },
        )

    def _ask(self, sql: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        with self._connection.client() as client:
            answer = client.query(sql, parameters={"database": self._database, **parameters})
        rows: Sequence[Sequence[Any]] = answer.result_rows
        return rows

    def _command(self, sql: str, parameters: dict[str, Any]) -> None:
        with self._connection.client() as client:
            client.command(sql, parameters={"database": self._database, **parameters})


def _hash(secret: str) -> str:
    # A secret of 256 random bits needs no slow hash.
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Sequence[Any]) -> tuple[ApiToken, str]:
    id, hashed, name, role, scopes, created_at, created_by, expires_at, revoked_at, revoked_by = row
    token = ApiToken(
        id=id,
        name=name,
        role=Role(role),
        scopes=tuple(scopes),
        created_at=_utc(created_at),
        created_by=created_by,
        expires_at=_utc(expires_at),
        revoked_at=None if revoked_at is None else _utc(revoked_at),
        revoked_by=revoked_by,
    )
    return token, hashed


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _seconds(moment: datetime) -> str:
    """The form that ClickHouse reads: seconds and three decimals."""
    return f"{moment.timestamp():.3f}"
