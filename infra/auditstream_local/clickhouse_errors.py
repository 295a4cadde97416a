"""How ClickHouse tells of an exception over HTTP: status, code, text, and the block inside a broken stream."""

import re
from collections.abc import Mapping
from types import MappingProxyType

SYNTAX_ERROR = 62
CANNOT_DECOMPRESS = 271
NOT_IMPLEMENTED = 48
POCO_EXCEPTION = 1000

_STATUS_OF_CODES: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        # Texts, values and queries that cannot be parsed or do not fit.
        400: (
            *(6, 15, 25, 26, 27, 36, 37, 38, 41, 43, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427),
            *(441, 456, 457, 675, 676),
        ),
        401: (194,),
        403: (192, 193, 497, 512, 516),
        # Tables, columns, functions, types, engines, databases, settings and formats that nobody knows.
        404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 139, 152, 336),
        408: (159,),
        411: (381,),
        413: (229,),
        415: (779,),
        501: (NOT_IMPLEMENTED,),
        503: (76, 202, 209, 439),
    }
)
_STATUS = {code: status for status, codes in _STATUS_OF_CODES.items() for code in codes}
_CODE = re.compile(rb"Code: (\d+)\. ")
_REPEATED = re.compile(rb"^(Code: \d+\. DB::Exception: )(?:\1)+")


class ClickHouseError(Exception):
    """What a client is told instead of a result.

    Attributes:
        code: ClickHouse's error code.
        text: The whole text, ``Code: N. DB::Exception: … (NAME)``; bytes, as it may quote raw data.
    """

    def __init__(self, code: int, text: bytes) -> None:
        super().__init__(text.decode("utf-8", "backslashreplace"))
        self.code = code
        self.text = text

    @classmethod
    def of(cls, code: int, name: str, message: str) -> "ClickHouseError":
        """Say something in the engine's manner that the engine does not say itself."""
        return cls(code, f"Code: {code}. DB::Exception: {message}. ({name})".encode())

    @classmethod
    def from_engine(cls, text: bytes) -> "ClickHouseError":
        """Take over the engine's own text, less the beginnings that nested exceptions repeat."""
        found = _CODE.search(text)
        if found is None:
            return cls(POCO_EXCEPTION, b"Code: 1000. DB::Exception: " + text)
        return cls(int(found[1]), _REPEATED.sub(rb"\1", text[found.start() :]))

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse answers with."""
        return _STATUS.get(self.code, 500)

    def body(self, version: str) -> bytes:
        """The text as it stands in a response."""
        return self.text.rstrip() + f" (version {version} (chDB))\n".encode()


def not_implemented(message: str) -> ClickHouseError:
    """Refuse what this front does not do."""
    return ClickHouseError.of(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)


def exception_block(body: bytes, tag: str) -> bytes:
    """Return what ClickHouse 25.11 and later add to a result that an exception cut short.

    Args:
        body: Text of the exception.
        tag: The response's ``X-ClickHouse-Exception-Tag``, which no data can forge.
    """
    end = f"{len(body)} {tag}\r\n__exception__\r\n".encode()
    return f"\r\n__exception__\r\n{tag}\r\n".encode() + body + end
