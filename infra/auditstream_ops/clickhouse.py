"""The connection to ClickHouse for operations, and its failures."""

from contextlib import AbstractContextManager

from clickhouse_connect.driver.client import Client

from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import connect as connect_to_clickhouse
from auditstream_storage import failing_as


def connect(settings: ClickHouseSettings) -> Client:
    """Connect; blocks up to 10 seconds.

    Raises:
        OperationError: ClickHouse does not answer, or refuses the user.
        SettingsError: A setting is malformed.
    """
    with clickhouse_errors(f"no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL for user {settings.clickhouse_user}"):
        return connect_to_clickhouse(settings)


def clickhouse_errors(prefix: str = "ClickHouse") -> AbstractContextManager[None]:
    """Within the block, failures of ClickHouse are raised as OperationError; the prefix begins its message."""
    return failing_as(lambda text: OperationError(f"{prefix}: {text}"))
