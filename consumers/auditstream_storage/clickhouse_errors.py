"""The errors of ClickHouse and of its client: their kinds, and their texts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError, MaxRetryError

from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.tls import tls_fault

FAILURES = (ClickHouseError, HTTPError, OSError)
"""The errors that a call of the client raises when ClickHouse, or the network, fails."""

_TEXT_CHARACTERS = 300


class ErrorKind(StrEnum):
    """Kinds of errors, by what the caller can do about them."""

    DATA_REFUSED = "data refused"
    """A record cannot be read. The statement had no effect, and the same data fails again."""
    AUTHENTICATION = "authentication"
    """User, password or grants are wrong."""
    NOT_FOUND = "not found"
    """Database or table are missing."""
    CERTIFICATE = "certificate"
    """TLS refused the connection; nothing was sent."""
    UNKNOWN = "unknown outcome"
    """Time-out, broken connection, error status: the statement may have taken effect or not."""


# Codes: src/Common/ErrorCodes.cpp of ClickHouse.
_KINDS = {
    6: ErrorKind.DATA_REFUSED,  # CANNOT_PARSE_TEXT
    27: ErrorKind.DATA_REFUSED,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    32: ErrorKind.DATA_REFUSED,  # ATTEMPT_TO_READ_AFTER_EOF
    33: ErrorKind.DATA_REFUSED,  # CANNOT_READ_ALL_DATA
    36: ErrorKind.DATA_REFUSED,  # BAD_ARGUMENTS
    44: ErrorKind.DATA_REFUSED,  # ILLEGAL_COLUMN: the writer's type fits no column
    53: ErrorKind.DATA_REFUSED,  # TYPE_MISMATCH
    70: ErrorKind.DATA_REFUSED,  # CANNOT_CONVERT_TYPE
    117: ErrorKind.DATA_REFUSED,  # INCORRECT_DATA
    131: ErrorKind.DATA_REFUSED,  # TOO_LARGE_STRING_SIZE
    321: ErrorKind.DATA_REFUSED,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349: ErrorKind.DATA_REFUSED,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    469: ErrorKind.DATA_REFUSED,  # VIOLATED_CONSTRAINT
    192: ErrorKind.AUTHENTICATION,  # UNKNOWN_USER
    193: ErrorKind.AUTHENTICATION,  # WRONG_PASSWORD
    194: ErrorKind.AUTHENTICATION,  # REQUIRED_PASSWORD
    497: ErrorKind.AUTHENTICATION,  # ACCESS_DENIED
    516: ErrorKind.AUTHENTICATION,  # AUTHENTICATION_FAILED
    60: ErrorKind.NOT_FOUND,  # UNKNOWN_TABLE
    81: ErrorKind.NOT_FOUND,  # UNKNOWN_DATABASE
}
_AVRO_CODE = 1001
"""STD_EXCEPTION: the code of ``avro::Exception``, and of much else that no record can cause."""
_FIXES = {
    ErrorKind.AUTHENTICATION: "check AUDITSTREAM_CLICKHOUSE_USER, its password and its grants",
    ErrorKind.NOT_FOUND: "check AUDITSTREAM_CLICKHOUSE_DATABASE, or run `auditstream migrate`",
}
_CA_VARIABLE = "AUDITSTREAM_CLICKHOUSE_CA_FILE"


def classify_error(error: BaseException) -> ErrorKind:
    """The kind of an error of the client. Every error that is not surely of another kind is UNKNOWN."""
    code: int | None = getattr(error, "code", None)
    if code in _KINDS:
        return _KINDS[code]
    if code == _AVRO_CODE and "avro::Exception" in str(error):
        return ErrorKind.DATA_REFUSED
    return ErrorKind.CERTIFICATE if tls_fault(error, _CA_VARIABLE) else ErrorKind.UNKNOWN


def error_text(error: BaseException) -> str:
    """The first line of an error's text, 300 characters of it at most, and the fix where the kind has one."""
    if fault := tls_fault(error, _CA_VARIABLE) or _connection_fault(error):
        return fault
    text = str(error).partition("\n")[0][:_TEXT_CHARACTERS] or type(error).__name__
    fix = _FIXES.get(classify_error(error))
    return f"{text}; {fix}" if fix else text


def _connection_fault(error: BaseException | None) -> str:
    """The server that cannot be reached, and why; empty if the error has another cause."""
    while error is not None and not isinstance(error, MaxRetryError):
        error = error.__cause__
    if error is None or error.reason is None:
        return ""
    # The text of the error itself is mostly the query string of the URL.
    cause = error.reason.__cause__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error.reason)
    return f"cannot connect to {error.pool.host}:{error.pool.port}: {reason}"


@contextmanager
def failing_as(failure: Callable[[str], AuditstreamError]) -> Iterator[None]:
    """Within the block, raise each failure of ClickHouse as an error of ours; ``failure`` makes it from the text."""
    try:
        yield
    except FAILURES as error:
        raise failure(error_text(error)) from error
