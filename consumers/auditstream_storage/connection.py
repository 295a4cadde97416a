"""The connection to ClickHouse, and what becomes of its failures."""

from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from auditstream_schemas.errors import StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings


class Connection:
    """Connects when it is first needed, so that the page starts while ClickHouse is away. For any number of threads."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._client: Client | None = None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The client; what it raises within the block becomes one error of ours.

        Raises:
            StoreUnavailableError: ClickHouse cannot be reached, refused, or took too long.
        """
        try:
            if self._client is None:
                self._client = clickhouse_connect.get_client(
                    dsn=self._settings.clickhouse_url,
                    username=self._settings.clickhouse_user,
                    password=str(self._settings.clickhouse_password),
                    autogenerate_session_id=False,
                )
            yield self._client
        except (ClickHouseError, HTTPError, OSError) as error:
            first = str(error).partition("\n")[0][:300]
            raise StoreUnavailableError(f"ClickHouse cannot be asked: {first or type(error).__name__}") from error

    def close(self) -> None:
        """Give the connections back."""
        if self._client is not None:
            self._client.close()
            self._client = None
