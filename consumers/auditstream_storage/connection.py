"""Connections to ClickHouse. The scheme of the URL decides about TLS, on any port."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from auditstream_schemas.errors import AuditstreamError, SettingsError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.tls import checked_ca_file
from auditstream_storage.clickhouse_errors import failing_as

_DEFAULT_PORTS = {"http": 8123, "https": 8443}


def client_options(settings: ClickHouseSettings) -> dict[str, Any]:
    """The client's options that come from the settings. Raises SettingsError, which names the variable at fault."""
    try:
        url = urlsplit(settings.clickhouse_url)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise _malformed(str(error)) from error
    if url.scheme not in _DEFAULT_PORTS:
        raise _malformed(f"the scheme is {url.scheme!r}" if url.scheme else "the scheme is missing")
    if not host:
        raise _malformed("the host is missing")
    if url.username or url.password or url.query or url.fragment:
        raise _malformed(
            "it has more than scheme, host, port and path; user and password belong in "
            "AUDITSTREAM_CLICKHOUSE_USER and AUDITSTREAM_CLICKHOUSE_PASSWORD"
        )
    options: dict[str, Any] = {
        # Not by `dsn`: the client ignores its scheme, so https on a custom port would be plain HTTP.
        "interface": url.scheme,
        "secure": url.scheme == "https",
        "host": host,
        "port": port or _DEFAULT_PORTS[url.scheme],
        "proxy_path": url.path.rstrip("/"),
        "username": settings.clickhouse_user,
        "password": str(settings.clickhouse_password),
    }
    ca_file = checked_ca_file(settings.clickhouse_ca_file, "AUDITSTREAM_CLICKHOUSE_CA_FILE")
    if url.scheme == "https":
        options |= {"verify": True} | ({"ca_cert": ca_file} if ca_file else {})
    return options


def connect(
    settings: ClickHouseSettings, *, timeout_seconds: float | None = None, retries: int | None = None
) -> Client:
    """Connect to ClickHouse; blocks until it answers, 10 seconds for the connection at most.

    Args:
        settings: Address and user.
        timeout_seconds: Longest wait for a piece of an answer; None for the client's own limit.
        retries: How often the client sends a failed query again; None for its own number.

    Raises:
        SettingsError: A setting is malformed.
        ClickHouseError: ClickHouse is away or refuses; likewise the other errors of `FAILURES`.
    """
    options = client_options(settings)
    if timeout_seconds is not None:
        options["send_receive_timeout"] = timeout_seconds
    if retries is not None:
        options["query_retries"] = retries
    # Without a session, statements of several threads do not wait for each other.
    return clickhouse_connect.get_client(**options, autogenerate_session_id=False)


class Connection:
    """Connects when it is first used, so that a service starts while ClickHouse is away. Safe to share between threads.

    ``failure`` makes the error that is raised when ClickHouse fails, from one line of text. All other arguments are
    those of `connect`.

    Raises:
        SettingsError: A setting is malformed.
    """

    def __init__(
        self,
        settings: ClickHouseSettings,
        failure: Callable[[str], AuditstreamError],
        *,
        timeout_seconds: float | None = None,
        retries: int | None = None,
    ) -> None:
        client_options(settings)
        self._settings, self._failure = settings, failure
        self._timeout_seconds, self._retries = timeout_seconds, retries
        self._client: Client | None = None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The client. Failures of ClickHouse within the block are raised as the error that `failure` makes."""
        with failing_as(self._failure):
            if self._client is None:
                self._client = connect(self._settings, timeout_seconds=self._timeout_seconds, retries=self._retries)
            yield self._client

    def close(self) -> None:
        """Close the connection; a later use opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _malformed(fault: str) -> SettingsError:
    return SettingsError(
        f"AUDITSTREAM_CLICKHOUSE_URL is malformed: {fault}; write http://host:port or https://host:port"
    )
