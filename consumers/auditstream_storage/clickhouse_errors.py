"""The errors of ClickHouse and of its client: which kinds there are, and their texts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from auditstream_schemas.errors import AuditstreamError
from auditstream_schemas.tls import tls_fault

FAILURES = (ClickHouseError, HTTPError, OSError)
"""What a call of the client raises when ClickHouse, or the way to it, fails."""

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
_DATA_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        33,  # CANNOT_READ_ALL_DATA
        36,  # BAD_ARGUMENTS
        44,  # ILLEGAL_COLUMN: the writer's type fits no column
        53,  # TYPE_MISMATCH
        70,  # CANNOT_CONVERT_TYPE
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        469,  # VIOLATED_CONSTRAINT
    }
)
_AVRO_CODE = 1001
"""STD_EXCEPTION: the code of ``avro::Exception``, and of much else that no record can cause."""
_AUTHENTICATION_CODES = frozenset(
    {
        192,  # UNKNOWN_USER
        193,  # WRONG_PASSWORD
        194,  # REQUIRED_PASSWORD
        497,  # ACCESS_DENIED
        516,  # AUTHENTICATION_FAILED
    }
)
_NOT_FOUND_CODES = frozenset(
    {
        60,  # UNKNOWN_TABLE
        81,  # UNKNOWN_DATABASE
    }
)
_FIXES = {
    ErrorKind.AUTHENTICATION: "check AUDITSTREAM_CLICKHOUSE_USER, its password and its grants",
    ErrorKind.NOT_FOUND: "check AUDITSTREAM_CLICKHOUSE_DATABASE, or run `auditstream migrate`",
}
_CA_VARIABLE = "AUDITSTREAM_CLICKHOUSE_CA_FILE"


def classify_error(error: BaseException) -> ErrorKind:
    """The kind of an error of the client. Every error that is not surely of another kind is UNKNOWN."""
    code = getattr(error, "code", None)
    if code in _DATA_CODES or (code == _AVRO_CODE and "avro::Exception" in str(error)):
        return ErrorKind.DATA_REFUSED
    if code in _AUTHENTICATION_CODES:
        return ErrorKind.AUTHENTICATION
    if code in _NOT_FOUND_CODES:
        return ErrorKind.NOT_FOUND
    return ErrorKind.CERTIFICATE if tls_fault(error, _CA_VARIABLE) else ErrorKind.UNKNOWN


def error_text(error: BaseException) -> str:
    """The first line of an error's text, 300 characters of it at most, and the fix where the kind has one."""
    if fault := tls_fault(error, _CA_VARIABLE):
        return fault
    text = str(error).partition("\n")[0][:_TEXT_CHARACTERS] or type(error).__name__
    fix = _FIXES.get(classify_error(error))
    return f"{text}; {fix}" if fix else text


@contextmanager
def failing_as(failure: Callable[[str], AuditstreamError]) -> Iterator[None]:
    """Within the block, raise each failure of ClickHouse as an error of ours, which `failure` makes of its text."""
    try:
        yield
    except FAILURES as error:
        raise failure(error_text(error)) from error
