"""``auditstream token``: tokens for the API of the audit log page."""

import dataclasses
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_admin.auth.tokens import ApiToken, TokenStore
from auditstream_admin.auth.viewer import Role
from auditstream_ops.commands.confirmation import operator
from auditstream_ops.self_audit import TrailEmitter
from auditstream_schemas.event import Entity
from auditstream_schemas.settings import AuditTrailSettings, ClickHouseSettings, loaders
from auditstream_storage import AuditTrail

_DAYS = 90
_MOST_DAYS = 366


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenSettings(ClickHouseSettings, AuditTrailSettings):
    """ClickHouse, and the events about tokens."""


@click.group()
def token() -> None:
    """Create, list and revoke tokens for the API of the audit log page.

    A token is for an admin of some organisations, or for an auditor. ClickHouse has only its hash: the token itself is
    printed once, when it is created. These commands need a ClickHouse user with the right to write, and emit events
    audit_log.token.*.
    """


@token.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, metavar="ID", help="Organisation whose events it may read; repeat for more."
)
@click.option("--auditor", is_flag=True, help="May read the events of all organisations; instead of --scope.")
@click.option(
    "--days", type=click.IntRange(1, _MOST_DAYS), default=_DAYS, show_default=True, help="Days until it expires."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click_options(TokenSettings, loaders(), argname="settings", show_envvars_in_help=True)
def create(
    settings: TokenSettings, *, name: str, scopes: tuple[str, ...], auditor: bool, days: int, as_json: bool
) -> None:
    """Create a token for the purpose NAME, and print it. It cannot be printed again."""
    if auditor == bool(scopes):
        raise click.UsageError("give either --scope or --auditor")
    with closing(TokenStore(settings)) as store:
        created, secret = store.create(
            name=name,
            role=Role.AUDITOR if auditor else Role.ADMIN,
            scopes=scopes,
            created_by=operator(),
            expires_at=datetime.now(UTC) + timedelta(days=days),
        )
    _record(settings, "audit_log.token.create", created)
    if as_json:
        click.echo(json.dumps({**_to_dict(created), "token": secret}))
        return
    until = f"until {created.expires_at:%Y-%m-%d}"
    click.echo(f"token {created.id} for {created.name}, {_rights(created)}, {until}", err=True)
    click.echo(secret)


@token.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
def list_tokens(settings: ClickHouseSettings, *, as_json: bool) -> None:
    """List all tokens, newest first, without their secrets."""
    with closing(TokenStore(settings)) as store:
        for stored in store.tokens():
            if as_json:
                click.echo(json.dumps(_to_dict(stored)))
                continue
            state, until = stored.state(datetime.now(UTC)), f"until {stored.expires_at:%Y-%m-%d}"
            click.echo(f"{stored.id}  {state:<7}  {until}  {stored.name}, {_rights(stored)}")


@token.command()
@click.argument("id", type=click.UUID)
@click_options(TokenSettings, loaders(), argname="settings", show_envvars_in_help=True)
def revoke(settings: TokenSettings, *, id: UUID) -> None:
    """Revoke the token with this ID: it is invalid at once."""
    with closing(TokenStore(settings)) as store:
        revoked = store.revoke(id, revoked_by=operator())
    _record(settings, "audit_log.token.revoke", revoked)
    click.echo(f"token {revoked.id} for {revoked.name} is revoked")


def _record(settings: TokenSettings, action: str, api_token: ApiToken) -> None:
    with TrailEmitter() as emit:
        AuditTrail(emit, scope_type=settings.scope_type).record(
            action,
            actor=Entity(id=operator(), type="operator"),
            target=Entity(id=str(api_token.id), type="audit_log_token", name=api_token.name),
            payload={
                "name": api_token.name,
                "role": str(api_token.role),
                "scopes": list(api_token.scopes),
                "expires_at": f"{api_token.expires_at:%Y-%m-%dT%H:%M:%SZ}",
            },
            scopes=api_token.scopes,
        )


def _rights(api_token: ApiToken) -> str:
    return "auditor" if api_token.role is Role.AUDITOR else f"admin of {', '.join(api_token.scopes)}"


def _to_dict(api_token: ApiToken) -> dict[str, object]:
    values = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(api_token).items()
    }
    return {**values, "id": str(api_token.id), "state": api_token.state(datetime.now(UTC))}
