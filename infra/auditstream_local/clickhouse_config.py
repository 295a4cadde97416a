"""Configuration of the local ClickHouse server: ``config.xml`` and ``users.xml``."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from auditstream_local.server import HOST
from auditstream_storage.grants import to_users_xml

_CONFIG = """\
<clickhouse>
    <listen_host>{host}</listen_host>
    <http_port>{http_port}</http_port>
    <tcp_port>{tcp_port}</tcp_port>
    <users_config>{users}</users_config>
    <macros><shard>1</shard><replica>1</replica></macros>
    <backups><allowed_path>{backups}</allowed_path></backups>
</clickhouse>
"""

PASSWORD = "auditstream"  # noqa: S105 - public on purpose
"""Password of the users auditstream_sink, auditstream_page and so on. It is public: the server is on loopback only."""
EXAMPLE_SCOPE = "acme"
"""The only scope whose events the user auditstream_scope_analyst can read."""


def write_config(directory: Path, *, http_port: int, tcp_port: int, databases: Sequence[str]) -> None:
    """Write both files into the directory, which is also for backups; raises OSError if that fails.

    The users of auditstream's parts get their rights in these databases.
    """
    users = directory / "users.xml"
    config = _CONFIG.format(
        host=HOST,
        http_port=http_port,
        tcp_port=tcp_port,
        users=escape(str(users)),
        backups=escape(f"{directory / 'backups'}/"),
    )
    (directory / "config.xml").write_text(config, "utf-8")
    users.write_text(to_users_xml(databases, PASSWORD, scope=EXAMPLE_SCOPE), "utf-8")
