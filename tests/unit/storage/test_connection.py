"""The address of ClickHouse, the kinds of its errors, and their texts."""

import socket
import ssl
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from typed_settings.types import SecretStr
from urllib3.exceptions import MaxRetryError, SSLError

from auditstream_schemas.errors import SettingsError, StoreUnavailableError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage import Connection, ErrorKind, classify_error, error_text, failing_as
from auditstream_storage.connection import client_options


@pytest.mark.parametrize(
    ("url", "interface", "port"),
    [
        ("http://ch", "http", 8123),
        ("http://ch:8443", "http", 8443),
        ("https://ch", "https", 8443),
        ("https://ch:9000", "https", 9000),
        ("HTTPS://ch:9000", "https", 9000),
    ],
)
def test_the_scheme_decides_about_tls_on_any_port(url: str, interface: str, port: int) -> None:
    options = client_options(ClickHouseSettings(clickhouse_url=url, clickhouse_password=SecretStr("p")))
    assert (options["interface"], options["secure"], options["host"], options["port"]) == (
        interface,
        interface == "https",
        "ch",
        port,
    )
    assert options.get("verify", False) is (interface == "https")


@pytest.mark.parametrize(
    "url", ["", "ch:8123", "tcp://ch:9000", "http://", "http://:8123", "https://u:p@ch", "http://ch:x", "http://ch?a=1"]
)
def test_a_malformed_url_is_an_error_that_names_the_variable(url: str) -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_CLICKHOUSE_URL is malformed") as error:
        Connection(ClickHouseSettings(clickhouse_url=url), StoreUnavailableError)
    assert "u:p" not in str(error.value)


def test_a_ca_file_that_cannot_be_used_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    for ca_file in (tmp_path / "missing.pem", Path(__file__)):
        with pytest.raises(SettingsError, match="AUDITSTREAM_CLICKHOUSE_CA_FILE"):
            client_options(ClickHouseSettings(clickhouse_url="https://ch", clickhouse_ca_file=ca_file))


def refused_certificate() -> Exception:
    reason = SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))
    error = OperationalError("Error executing HTTP request")
    error.__cause__ = MaxRetryError(None, "/", reason)  # type: ignore[arg-type]
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DatabaseError("cannot parse", code=27), ErrorKind.DATA_REFUSED),
        (DatabaseError("avro::Exception: x", code=1001), ErrorKind.DATA_REFUSED),
        (DatabaseError("std::exception", code=1001), ErrorKind.UNKNOWN),
        (DatabaseError("wrong password", code=516), ErrorKind.AUTHENTICATION),
        (DatabaseError("no table", code=60), ErrorKind.NOT_FOUND),
        (DatabaseError("too slow", code=159), ErrorKind.UNKNOWN),
        (TimeoutError(), ErrorKind.UNKNOWN),
        (refused_certificate(), ErrorKind.CERTIFICATE),
    ],
)
def test_an_error_has_the_kind_of_its_code_and_every_other_is_an_unknown_outcome(
    error: Exception, kind: ErrorKind
) -> None:
    assert classify_error(error) is kind


def test_the_text_of_an_error_is_its_first_line_and_the_fix() -> None:
    assert error_text(DatabaseError("a" * 400 + "\nb", code=159)) == "a" * 300
    assert error_text(TimeoutError()) == "TimeoutError"
    assert error_text(DatabaseError("denied\nb", code=516)).startswith("denied; check AUDITSTREAM_CLICKHOUSE_USER")
    assert "AUDITSTREAM_CLICKHOUSE_CA_FILE" in error_text(refused_certificate())


def test_a_failure_of_clickhouse_becomes_the_callers_error_and_others_pass() -> None:
    with pytest.raises(StoreUnavailableError, match=r"^x$"), failing_as(StoreUnavailableError):
        raise DatabaseError("x")
    with pytest.raises(KeyError), failing_as(StoreUnavailableError):
        raise KeyError("x")


def test_a_connection_that_is_refused_names_server_and_cause() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    connection = Connection(ClickHouseSettings(clickhouse_url=f"http://{address}"), StoreUnavailableError)
    with pytest.raises(StoreUnavailableError) as refused, connection.client():
        pass
    assert str(refused.value) == f"cannot connect to {address}: Connection refused"
