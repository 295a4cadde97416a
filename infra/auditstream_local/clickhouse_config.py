"""Configuration of the local ClickHouse server: ``config.xml`` and ``users.xml``."""

from pathlib import Path
from xml.sax.saxutils import escape

from auditstream_local.server import HOST

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

_USERS = """\
<clickhouse>
    <profiles><default/></profiles>
    <quotas><default/></quotas>
    <users>
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
        </default>
    </users>
</clickhouse>
"""


def write_config(directory: Path, *, http_port: int, tcp_port: int) -> None:
    """Write both files into a directory.

    Raises:
        OSError: The directory cannot be written.
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
    users.write_text(_USERS, "utf-8")
