"""What a request says besides its statement: parameters, settings, database, format, who asks."""

import base64
import binascii
import hmac
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from auditstream_local.clickhouse_errors import ClickHouseError, not_implemented

# Consumed here, or meaningless without users and sessions; everything else in a URL is a setting.
_NOT_SETTINGS = frozenset(
    {
        *("query", "database", "default_format", "query_id", "user", "password", "quota_key", "wait_end_of_query"),
        *("session_id", "session_timeout", "session_check", "close_session", "buffer_size", "stacktrace"),
        *("compress", "decompress", "client_protocol_version"),
    }
)
_SETTING_NAME = re.compile(r"[A-Za-z_][\w.]*")
_FALSE = frozenset({"", "0", "false"})
_EXTERNAL = re.compile(r"(.+)_(format|structure|types)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What holds for one request.

    Attributes:
        query: What the URL or the form holds of the statement.
        query_id: The client's, or one made up.
        database: Database of unqualified names; empty for the default.
        format: Output format where the statement names none.
        settings: ClickHouse settings.
        parameters: Values for ``{name:Type}``.
        external: What is said of external tables: ``format``, ``structure`` or ``types``, keyed by table name.
        wait: Send nothing before the query has ended, so that a failure has a status of its own.
        compress: The response may be compressed.
    """

    query: str
    query_id: str
    database: str
    format: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    external: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    wait: bool
    compress: bool


def read_options(
    pairs: Iterable[tuple[str, str]], headers: Mapping[str, str], tables: frozenset[str] = frozenset()
) -> Options:
    """Sort out a request's parameters.

    Args:
        pairs: Those of the URL, then those of a form.
        headers: Keyed by lower-case name.
        tables: Names of the external tables that come with the request.

    Raises:
        ClickHouseError: A parameter asks for what this front does not offer.
    """
    given: dict[str, str] = {}
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    external: dict[str, dict[str, str]] = {name: {} for name in tables}
    for key, value in pairs:
        if key != "query" and not _is_utf8(key + value):
            raise ClickHouseError.of(36, "BAD_ARGUMENTS", f"parameter {key!r} is not UTF-8: put raw bytes in the query")
        described = _EXTERNAL.fullmatch(key)
        if described is not None and described[1] in tables:
            external[described[1]][described[2]] = value
        elif key.startswith("param_"):
            parameters[key.removeprefix("param_")] = value
        elif key in _NOT_SETTINGS:
            given[key] = value
        elif key == "role":
            raise not_implemented("the local stack has no roles")
        elif _SETTING_NAME.fullmatch(key):
            settings[key] = value
        else:
            raise ClickHouseError.of(115, "UNKNOWN_SETTING", f"Unknown setting {key!r}")
    if given.get("compress", "0") not in _FALSE or given.get("decompress", "0") not in _FALSE:
        raise not_implemented(
            "compress and decompress (ClickHouse's own block compression) are not served by the local stack: "
            "use Content-Encoding, or Accept-Encoding with enable_http_compression=1"
        )
    query_id = given.get("query_id") or str(uuid.uuid4())
    settings.setdefault("log_comment", query_id)
    return Options(
        query=given.get("query", ""),
        query_id=query_id,
        database=given.get("database") or headers.get("x-clickhouse-database", ""),
        format=given.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        settings=settings,
        parameters=parameters,
        external=external,
        wait=given.get("wait_end_of_query", "0") not in _FALSE,
        compress=settings.get("enable_http_compression", "0") not in _FALSE,
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_password(password: str, pairs: Iterable[tuple[str, str]], headers: Mapping[str, str]) -> None:
    """Refuse a request that does not have the password, in any of the places ClickHouse takes it from.

    Raises:
        ClickHouseError: It is missing or wrong.
    """
    given = headers.get("x-clickhouse-key")
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if given is None and scheme.lower() == "basic":
        try:
            given = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    if given is None:
        given = dict(pairs).get("password", "")
    if not hmac.compare_digest(given.encode(errors="surrogateescape"), password.encode()):
        raise ClickHouseError.of(
            516, "AUTHENTICATION_FAILED", "Authentication failed: password is incorrect, or there is no user"
        )


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse what a web page of another site makes a browser send: it may run SQL on this machine.

    Raises:
        ClickHouseError: The request comes from a page that was not served from here.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        raise ClickHouseError.of(497, "ACCESS_DENIED", "requests of web pages of other origins are refused")
