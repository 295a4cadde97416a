"""The rights that each part of auditstream needs in ClickHouse: one list, for a server (SQL) and for users.xml.

The views ``events`` and ``exports`` run with the rights of the user that created them (``SQL SECURITY DEFINER``), which
is the migrator. An analyst therefore needs no right on the table ``event_log``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from xml.sax.saxutils import escape

SCOPE_ANALYST = "auditstream_scope_analyst"
"""Example user of users.xml: an analyst who sees the events of one scope."""
READS_ONLY = "readonly = 2"
"""The setting that refuses every write. 2 still lets a client choose its other settings, as most clients do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGrants:
    """The rights of one role.

    Attributes:
        name: Short name, for example ``sink``.
        purpose: The commands or people that use it, and for what.
        rights: Privileges and their objects, as in ``GRANT``; ``{database}`` stands for the database.
        reads_only: Whether every write is refused, also those of tables that are created later.
    """

    name: str
    purpose: str
    rights: tuple[str, ...]
    reads_only: bool = False

    @property
    def user(self) -> str:
        """Name of the ClickHouse user in users.xml and in examples."""
        return f"auditstream_{self.name}"

    @property
    def role(self) -> str:
        """Name of the ClickHouse role."""
        return f"auditstream_{self.name}_role"

    def granted(self, database: str) -> list[str]:
        """The rights in one database, each as the text between ``GRANT`` and ``TO``."""
        return [right.format(database=database) for right in self.rights]


ROLES = (
    RoleGrants(
        name="sink",
        purpose="auditstream sink: writes events and the ledger; creates and drops its own stages only",
        rights=(
            "SELECT, INSERT ON {database}.event_log",
            "SELECT, INSERT ON {database}.ledger",
            "SELECT, INSERT ON {database}.copies",
            "SELECT, INSERT, CREATE TABLE, DROP TABLE, TRUNCATE ON {database}.stage_*",
            "SELECT, INSERT, CREATE TABLE, DROP TABLE, TRUNCATE ON {database}.status_*",
            "TABLE ENGINE ON Memory",
        ),
    ),
    RoleGrants(
        name="exporter",
        purpose="auditstream exporter, and auditstream export: reads events, records the state of export jobs",
        rights=(
            "SELECT ON {database}.events",
            "SELECT ON {database}.ledger",
            "SELECT ON {database}.copies",
            "SELECT ON {database}.exports",
            "SELECT, INSERT ON {database}.export_jobs",
            "SELECT, INSERT ON {database}.export_cancels",
        ),
    ),
    RoleGrants(
        name="page",
        purpose="auditstream admin: reads events, tokens and the ledger; writes requests for exports only",
        rights=(
            "SELECT ON {database}.events",
            "SELECT ON {database}.event_log",
            "SELECT ON {database}.ledger",
            "SELECT ON {database}.api_tokens",
            "SELECT ON {database}.exports",
            "SELECT, INSERT ON {database}.export_jobs",
            "INSERT ON {database}.export_cancels",
        ),
    ),
    RoleGrants(
        name="analyst", purpose="people who query events", rights=("SELECT ON {database}.events",), reads_only=True
    ),
    RoleGrants(
        name="operator",
        purpose="auditstream verify, reconcile, dlq, accept-loss, token, export, export jobs",
        rights=(
            "SELECT ON {database}.*",
            "INSERT ON {database}.ledger",
            "INSERT ON {database}.api_tokens",
            "INSERT ON {database}.export_jobs",
            "INSERT ON {database}.export_cancels",
        ),
    ),
    RoleGrants(
        name="migrator",
        purpose="auditstream migrate: creates the tables; the views run with its rights, so keep this user",
        rights=(
            "CREATE DATABASE ON {database}.*",
            "CREATE TABLE, CREATE VIEW, DROP VIEW, ALTER, SELECT ON {database}.*",
            "INSERT ON {database}.schema_migrations",
            "TABLE ENGINE ON ReplacingMergeTree",
        ),
    ),
)
"""Every role, each with the least rights that it works with."""


def role_named(name: str) -> RoleGrants:
    """Return a role. Raises KeyError if there is none of this name."""
    return {role.name: role for role in ROLES}[name]


def to_sql(database: str, roles: Sequence[RoleGrants] = ROLES) -> list[str]:
    """Statements that create the roles and their rights, for a server on which a user may run them again and again."""
    statements = []
    for role in roles:
        settings = f" SETTINGS {READS_ONLY}" if role.reads_only else ""
        statements.append(f"CREATE ROLE IF NOT EXISTS {role.role}{settings}")
        statements += [f"GRANT {right} TO {role.role}" for right in role.granted(database)]
    return statements


def user_sql(role: RoleGrants, password: str) -> str:
    """The statement that creates a user with one role."""
    return f"CREATE USER IF NOT EXISTS {role.user} IDENTIFIED BY {_literal(password)} DEFAULT ROLE {role.role}"


def to_users_xml(databases: Sequence[str], password: str, *, scope: str) -> str:
    """A ClickHouse ``users.xml`` with a user for each role, and ``default`` without a password from loopback only.

    Args:
        databases: Databases in which the users have their rights.
        password: Password of every user but ``default``.
        scope: Id of the only scope whose events the example user ``auditstream_scope_analyst`` sees.
    """
    policies = "".join(
        f"<{database}><events><filter>scope_id = {escape(_literal(scope))}</filter></events></{database}>"
        for database in databases
    )
    row_policies = f"\n      <databases>{policies}</databases>"
    users = [_user(role.user, role, databases, password) for role in ROLES]
    users.append(_user(SCOPE_ANALYST, role_named("analyst"), databases, password, extra=row_policies))
    return f"""\
<clickhouse>
  <profiles><default/><reads_only><readonly>2</readonly></reads_only></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </default>
    {"".join(users)}
  </users>
</clickhouse>
"""


def _user(name: str, role: RoleGrants, databases: Sequence[str], password: str, *, extra: str = "") -> str:
    rights = dict.fromkeys(right for database in databases for right in role.granted(database))
    grants = "".join(f"\n        <query>GRANT {escape(right)}</query>" for right in rights)
    return f"""
    <{name}>
      <password_sha256_hex>{sha256(password.encode()).hexdigest()}</password_sha256_hex>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>{"reads_only" if role.reads_only else "default"}</profile>
      <quota>default</quota>{extra}
      <grants>{grants}
      </grants>
    </{name}>"""


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
