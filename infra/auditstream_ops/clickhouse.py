"""A connection to ClickHouse for operations: deploy steps, questions, accounts."""

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import ClickHouseSettings


def connect(settings: ClickHouseSettings) -> Client:
    """Connect; blocks up to 10 seconds.

    Raises:
        OperationError: ClickHouse does not answer, or refuses the user.
    """
    try:
        return clickhouse_connect.get_client(
            dsn=settings.clickhouse_url,
            username=settings.clickhouse_user,
            password=str(settings.clickhouse_password),
            autogenerate_session_id=False,
        )
    except ClickHouseError as error:
        raise OperationError(
            f"no ClickHouse at AUDITSTREAM_CLICKHOUSE_URL for user {settings.clickhouse_user}: "
            f"{str(error).partition(chr(10))[0][:200]}"
        ) from error
