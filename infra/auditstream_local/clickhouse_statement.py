"""What the front must know of a SQL text before the engine sees it. Pure functions over bytes.

The engine parses; here we only find the statement's first words, the end of an ``INSERT``'s head, where its
data begins, and the ``FORMAT`` clause at the end of a query. What is not recognised goes to the engine as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from auditstream_local.clickhouse_errors import SYNTAX_ERROR, ClickHouseError, not_implemented

_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
    |(?P<other>\d[\w.]*|'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|"[^"\\]*(?:(?:\\.|"")[^"\\]*)*"|`[^`\\]*(?:(?:\\.|``)[^`\\]*)*`
        |\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_SETTING = rb"\w+\s*=\s*(?:'[^'\\]*(?:\\.[^'\\]*)*'|[-+\w.]+)"
_LATE_SETTINGS = re.compile(rb"\s+SETTINGS\s+" + _SETTING + rb"(?:\s*,\s*" + _SETTING + rb")*", re.IGNORECASE)
_DATA_START = re.compile(rb"[ \t\f]*\r?\n?")
_QUERY_ID = re.compile(rb"\bquery_id\b", re.IGNORECASE)
# The engine gives a query an id of its own; the client's is kept as its log_comment.
_CLIENTS_QUERY_ID = b"if(Settings['log_comment'] = '', query_id, Settings['log_comment'])"
# A text without any of these can't hold what read_statement looks for behind its first words.
_TELLTALES = (b"format", b"outfile", b"input", b";")
_LOOKAHEAD = 1024
_STREAMING = frozenset({b"SELECT", b"WITH", b"FROM"})
_ANSWERING = _STREAMING | {b"SHOW", b"DESCRIBE", b"DESC", b"EXPLAIN", b"EXISTS", b"CHECK", b"KILL"}


class Head(Enum):
    """What the beginning of a text is, when it is not an insert with data behind it."""

    INCOMPLETE = auto()
    NO_DATA = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertHead:
    """An ``INSERT`` that is followed by data.

    Attributes:
        before: The statement up to where the source of the data is named.
        settings: Its SETTINGS clause, or nothing.
        format: Input format.
        data_at: Offset of the first byte of data.
    """

    before: bytes
    settings: bytes
    format: bytes
    data_at: int

    def sql(self, path: str) -> bytes:
        """Return the statement with its data read from a file."""
        source = b" FROM INFILE " + quote(path) + b" COMPRESSION 'none' "
        return self.before + source + self.settings + b" FORMAT " + self.format


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement without data.

    Attributes:
        text: What the engine is to run.
        answers: It has a result, be it empty.
        streams: The result can be of any size, and the engine can write it to a file.
        output_at: Offset in the text at which ``INTO OUTFILE`` belongs.
        format: Output format that the text names, if any.
    """

    text: bytes
    answers: bool
    streams: bool
    output_at: int
    format: str | None

    def into(self, path: str, default_format: str) -> bytes:
        """Return the statement with its result written behind what a file or a pipe holds."""
        clause = b"\nINTO OUTFILE " + quote(path) + b" APPEND "
        if self.format is None:
            return self.text[: self.output_at] + clause + b"FORMAT " + default_format.encode()
        return self.text[: self.output_at] + clause + self.text[self.output_at :]


def quote(text: str) -> bytes:
    """Return a SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'".encode()


def read_insert_head(text: bytes, *, final: bool) -> InsertHead | Head:
    """Tell whether a text begins with an ``INSERT`` that has data behind it.

    Args:
        text: The beginning of the statement, at any length.
        final: Nothing comes after it.

    Raises:
        ClickHouseError: The insert takes its data in a way this front does not offer.
    """
    tokens = _tokens(text)
    first = next(tokens, None)
    if first is None or (not final and (first.end == len(text) or first.opens_unclosed(text))):
        return Head.NO_DATA if final else Head.INCOMPLETE
    if first.word != b"INSERT":
        return Head.NO_DATA
    return _insert_clause(text, tokens, final=final)


def read_statement(text: bytes) -> Statement:
    """Find out what the front must know of a statement without data.

    Raises:
        ClickHouseError: It is empty, several statements, or one that this front does not offer.
    """
    words = _first_words(text)
    lowered = text.lower()
    format_name, output_at = None, len(text.rstrip())
    if any(telltale in lowered for telltale in _TELLTALES):
        format_name, output_at, text = _ending(text, is_insert=words[:1] == [b"INSERT"])
    if not words and not text.strip():
        raise ClickHouseError.of(SYNTAX_ERROR, "SYNTAX_ERROR", "Empty query")
    _refuse_sessions(words)
    if words[:1] == [b"KILL"]:
        text = _QUERY_ID.sub(lambda _: _CLIENTS_QUERY_ID, text)
    return Statement(
        text=text,
        answers=not _ANSWERING.isdisjoint(words[:1]),
        streams=not _STREAMING.isdisjoint(words[:1]),
        output_at=output_at,
        format=format_name,
    )


@dataclass(slots=True)
class _Token:
    word: bytes
    sign: bytes
    start: int
    end: int

    @property
    def depth(self) -> int:
        """What the token adds to the depth of brackets."""
        return (self.sign in {b"(", b"[", b"{"}) - (self.sign in {b")", b"]", b"}"})

    def opens_unclosed(self, text: bytes) -> bool:
        """Whether a string, a quoted name or a comment begins here and ends beyond the text."""
        return self.sign in {b"'", b'"', b"`"} or (self.sign == b"/" and text[self.end : self.end + 1] == b"*")


def _tokens(text: bytes) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "skip":
            word, sign = match["word"], match["sign"]
            yield _Token((word or b"").upper(), sign or b"", match.start(), match.end())


def _insert_clause(text: bytes, tokens: Iterator[_Token], *, final: bool) -> InsertHead | Head:
    """Find the clause that says where the rows come from, behind the word INSERT."""
    depth, at, name_expected = 0, None, True
    for token in tokens:
        if not final and (token.end == len(text) or token.opens_unclosed(text)):
            return Head.INCOMPLETE
        depth += token.depth
        if token.sign == b".":
            name_expected = True
        elif depth == 0 and name_expected:
            name_expected = token.word in {b"INTO", b"TABLE", b"FUNCTION"}
        elif depth == 0 and token.word == b"SETTINGS" and at is None:
            at = token.start
        elif depth == 0 and token.word == b"VALUES":
            at = token.start if at is None else at
            settings = text[at : token.start]
            return InsertHead(before=text[:at], settings=settings, format=b"Values", data_at=token.end)
        elif depth == 0 and token.word == b"FORMAT":
            return _insert_format(text, token.start if at is None else at, token, next(tokens, None), final=final)
        elif depth == 0 and token.word in {b"SELECT", b"WITH", b"WATCH"}:
            return Head.NO_DATA
        elif depth == 0 and token.word == b"INFILE":
            raise not_implemented("FROM INFILE is a feature of ClickHouse's own client: send the data as the body")
    return Head.NO_DATA if final else Head.INCOMPLETE


def _insert_format(text: bytes, at: int, keyword: _Token, name: _Token | None, *, final: bool) -> InsertHead | Head:
    if not final and (name is None or len(text) - name.end < _LOOKAHEAD):
        return Head.INCOMPLETE
    if name is None or not name.word:
        return Head.NO_DATA
    settings, end = text[at : keyword.start], name.end
    if (late := _LATE_SETTINGS.match(text, end)) is not None:
        settings, end = settings + late[0], late.end()
    start = _DATA_START.match(text, end)
    data_at = end if start is None else start.end()
    if text[data_at : data_at + 1] == b";":
        return Head.NO_DATA
    return InsertHead(before=text[:at], settings=settings, format=text[name.start : name.end], data_at=data_at)


def _first_words(text: bytes) -> list[bytes]:
    words: list[bytes] = []
    for token in _tokens(text):
        if token.word:
            words.append(token.word)
        if len(words) == 5 or not (token.word or token.sign == b"("):
            break
    return words


def _ending(text: bytes, *, is_insert: bool) -> tuple[str | None, int, bytes]:
    """Return the format named at the end, where the output clause belongs, and the text without its ``;``."""
    tokens = list(_tokens(text))
    while tokens and tokens[-1].sign == b";":
        tokens.pop()
    end = tokens[-1].end if tokens else 0
    format_name, output_at, depth = None, end, 0
    for index, token in enumerate(tokens):
        depth += token.depth
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.sign == b";":
            raise ClickHouseError.of(SYNTAX_ERROR, "SYNTAX_ERROR", "Multi-statements are not allowed")
        if following is None:
            break
        if token.word == b"INTO" and following.word == b"OUTFILE":
            raise ClickHouseError.of(
                358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed over HTTP: keep the response"
            )
        if is_insert and token.word == b"INPUT" and following.sign == b"(":
            raise not_implemented("input() is not served by the local stack: insert the data as they are")
        if depth == 0 and token.word == b"FORMAT" and following.word not in {b"", b"SETTINGS"}:
            after = tokens[index + 2] if index + 2 < len(tokens) else None
            if after is None or after.word == b"SETTINGS":
                format_name = text[following.start : following.end].decode("ascii", "replace")
                output_at = token.start
    return format_name, output_at, text[:end]


def _refuse_sessions(words: list[bytes]) -> None:
    if words[:1] in ([b"SET"], [b"USE"]):
        raise not_implemented(
            f"{words[0].decode()} would outlast the request, and the local stack keeps no sessions: give settings "
            "as URL parameters or in a SETTINGS clause, and the database as the parameter 'database'"
        )
    if words[:1] == [b"CREATE"] and b"TEMPORARY" in words[1:4]:
        raise not_implemented(
            "a temporary table lives in a session, and the local stack keeps none: use a table with ENGINE = Memory"
        )
