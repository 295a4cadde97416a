"""Migrations may be applied again, and an applied migration may not change."""

from dataclasses import replace

import pytest

from auditstream_ops.deploy import migrate as deploy
from auditstream_schemas.errors import OperationError
from tests.support.fix_stack import Tenant


def test_applied_migrations_are_left_alone(tenant: Tenant) -> None:
    with tenant.administrator() as client:
        assert deploy.pending(client, tenant.database) == []
        assert deploy.migrate(client, tenant.database) == []


def test_an_interrupted_migration_is_run_again(tenant: Tenant) -> None:
    with tenant.administrator() as client:
        client.command(
            f"ALTER TABLE {tenant.database}.schema_migrations DELETE WHERE version >= 2 SETTINGS mutations_sync = 1"
        )
        shipped = deploy.migrations(tenant.database)
        assert deploy.migrate(client, tenant.database) == shipped[1:]
        assert deploy.pending(client, tenant.database) == []


def test_an_applied_migration_that_differs_is_an_error(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = deploy.migrations(tenant.database)
    monkeypatch.setattr(deploy, "migrations", lambda _database: [replace(first, checksum="other"), *others])
    with tenant.administrator() as client, pytest.raises(OperationError, match="in another form"):
        deploy.migrate(client, tenant.database)
