"""``auditstream token``: tokens of the admins' API."""

import dataclasses
import getpass
import json
import socket
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
from typed_settings import click_options

from auditstream_admin.auth.tokens import ApiToken, TokenStore
from auditstream_admin.auth.viewer import Role
from auditstream_ops.self_audit import operator_emitter
from auditstream_schemas.settings import ClickHouseSettings, loaders

_DAYS = 90
_MOST_DAYS = 366


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the admins' API.

    A token is for an admin of some organisations, or for an auditor. What is kept of it is a hash: it is shown once,
    when it is made. These commands need a ClickHouse user that may write, and leave events audit_log.token.*.
    """


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, metavar="ID", help="Organisation whose admin it is; again for more.")
@click.option("--auditor", is_flag=True, help="Instead: sees all organisations.")
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    default=_DAYS,
    show_default=True,
    help="Expires after so many days.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
def create(
    settings: ClickHouseSettings, *, name: str, scopes: tuple[str, ...], auditor: bool, days: int, as_json: bool
) -> None:
    """Make a token, which NAME says the use of, and print it: it cannot be shown again."""
    if auditor == bool(scopes):
        raise click.UsageError("give either --scope or --auditor")
    store = TokenStore(settings)
    made, text = store.create(
        name=name,
        role=Role.AUDITOR if auditor else Role.ADMIN,
        scopes=scopes,
        created_by=_operator(),
        expires_at=datetime.now(UTC) + timedelta(days=days),
    )
    store.close()
    _note("audit_log.token.create", made)
    if as_json:
        click.echo(json.dumps({**_described(made), "token": text}))
        return
    click.echo(f"token {made.id} for {made.name}, {_rights(made)}, until {made.expires_at:%Y-%m-%d}", err=True)
    click.echo(text)


@token.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
def list_tokens(settings: ClickHouseSettings, *, as_json: bool) -> None:
    """List all tokens, newest first; their secrets are not known."""
    store = TokenStore(settings)
    for found in store.tokens():
        if as_json:
            click.echo(json.dumps(_described(found)))
            continue
        state = found.state(datetime.now(UTC))
        click.echo(f"{found.id}  {state:<7}  until {found.expires_at:%Y-%m-%d}  {found.name}, {_rights(found)}")
    store.close()


@token.command()
@click.argument("id", type=click.UUID)
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
def revoke(settings: ClickHouseSettings, *, id: UUID) -> None:
    """Make the token with this ID worthless at once."""
    store = TokenStore(settings)
    gone = store.revoke(id, revoked_by=_operator())
    store.close()
    _note("audit_log.token.revoke", gone)
    click.echo(f"token {gone.id} for {gone.name} is revoked")


def _note(action: str, about: ApiToken) -> None:
    with operator_emitter() as emit:
        emit(
            action=action,
            actor={"id": _operator(), "type": "operator"},
            target={"id": str(about.id), "type": "audit_log_token", "name": about.name},
            payload={
                "name": about.name,
                "role": str(about.role),
                "scopes": list(about.scopes),
                "expires_at": f"{about.expires_at:%Y-%m-%dT%H:%M:%SZ}",
            },
            scopes=about.scopes,
        )


def _operator() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _rights(found: ApiToken) -> str:
    return "auditor" if found.role is Role.AUDITOR else f"admin of {', '.join(found.scopes)}"


def _described(found: ApiToken) -> dict[str, object]:
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(found).items()
    }
    return {**shown, "id": str(found.id), "state": found.state(datetime.now(UTC))}
