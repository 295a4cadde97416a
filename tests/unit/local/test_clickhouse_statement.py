import pytest

from auditstream_local.clickhouse_errors import ClickHouseError
from auditstream_local.clickhouse_statement import (
    Head,
    InsertHead,
    quote,
    read_insert_head,
    read_statement,
)


@pytest.mark.parametrize(
    ("text", "sql", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2", b"INSERT INTO t FROM INFILE '/p' FORMAT CSV", b"1,2"),
        (b"INSERT INTO t FORMAT CSV \t\r\n\n1", b"INSERT INTO t FROM INFILE '/p' FORMAT CSV", b"\n1"),
        (b"insert into t (a, b) values (1),(2)", b"insert into t (a, b) FROM INFILE '/p' FORMAT Values", b" (1),(2)"),
        (
            b"INSERT INTO t SETTINGS a = 'FORMAT x', b=1 FORMAT Native\n\x00\xff",
            b"INSERT INTO t FROM INFILE '/p' SETTINGS a = 'FORMAT x', b=1 FORMAT Native",
            b"\x00\xff",
        ),
        (
            b"INSERT INTO t FORMAT JSONEachRow SETTINGS a=1, b='x'\n{}",
            b"INSERT INTO t FROM INFILE '/p' SETTINGS a=1, b='x' FORMAT JSONEachRow",
            b"{}",
        ),
        (b"/* VALUES */ INSERT INTO t -- FORMAT X\nFORMAT TSV\n1", b"", b"1"),
        (b"INSERT INTO db.format (`values`, format) FORMAT TSV\n1", b"", b"1"),
        (b"INSERT INTO {format:Identifier} FORMAT TSV\n1", b"", b"1"),
        (b"INSERT INTO FUNCTION file('x', 'CSV', 'a Int8') FORMAT TSV\n1", b"", b"1"),
        (b"INSERT INTO t FORMAT RowBinary\n", b"", b""),
    ],
)
def test_an_insert_is_split_from_its_data(text: bytes, sql: bytes, data: bytes) -> None:
    head = read_insert_head(text, final=True)
    assert isinstance(head, InsertHead)
    assert text[head.data_at :] == data
    if sql:
        assert b" ".join(head.sql("/p").replace(b"COMPRESSION 'none'", b"").split()) == sql


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t (a, `b c`) SETTINGS x = 'a b' FORMAT Native\n" + b"\x00'" * 2000,
        b"-- a comment\nINSERT INTO t VALUES (1, 'x')" + b", (2, 'y')" * 1000,
    ],
)
def test_an_insert_is_read_the_same_however_it_arrives(text: bytes) -> None:
    whole = read_insert_head(text, final=True)
    answers = [read_insert_head(text[:length], final=False) for length in range(len(text))]
    first = next(index for index, answer in enumerate(answers) if answer is not Head.INCOMPLETE)
    assert set(answers[:first]) == {Head.INCOMPLETE}
    assert all(answer == whole for answer in answers[first:])


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1",
        b"",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t WITH 1 AS x SELECT x",
        b"EXPLAIN INSERT INTO t VALUES (1)",
        b"INSERT INTO t FORMAT",
    ],
)
def test_what_has_no_data_behind_it_is_a_plain_statement(text: bytes) -> None:
    assert read_insert_head(text, final=True) is Head.NO_DATA


@pytest.mark.parametrize(
    ("text", "format_name", "into"),
    [
        (b"SELECT 1", None, b"SELECT 1 INTO OUTFILE '/p' APPEND FORMAT TSV"),
        (b" (SELECT 1) ; -- end", None, b"(SELECT 1) INTO OUTFILE '/p' APPEND FORMAT TSV"),
        (b"SELECT 1 -- end", None, b"SELECT 1 -- end INTO OUTFILE '/p' APPEND FORMAT TSV"),
        (b"SELECT 1 FORMAT JSON;", "JSON", b"SELECT 1 INTO OUTFILE '/p' APPEND FORMAT JSON"),
        (
            b"SELECT 1 SETTINGS a=1 format CSV SETTINGS b=2",
            "CSV",
            b"SELECT 1 SETTINGS a=1 INTO OUTFILE '/p' APPEND format CSV SETTINGS b=2",
        ),
        (
            b"SELECT 'FORMAT x', format FROM t AS format",
            None,
            b"SELECT 'FORMAT x', format FROM t AS format INTO OUTFILE '/p' APPEND FORMAT TSV",
        ),
        (
            b"SELECT * FROM (SELECT 1 FORMAT CSV)",
            None,
            b"SELECT * FROM (SELECT 1 FORMAT CSV) INTO OUTFILE '/p' APPEND FORMAT TSV",
        ),
    ],
)
def test_a_query_is_written_to_a_file(text: bytes, format_name: str | None, into: bytes) -> None:
    statement = read_statement(text)
    assert statement.streams
    assert statement.format == format_name
    assert b" ".join(statement.into("/p", "TSV").split()) == into


def test_a_comment_at_the_end_does_not_swallow_the_output() -> None:
    assert b"-- end\nINTO OUTFILE" in read_statement(b"SELECT 1 -- end").into("/p", "TSV")


@pytest.mark.parametrize(
    ("text", "answers", "streams"),
    [
        (b"WITH 1 AS x SELECT x", True, True),
        (b"FROM t SELECT a", True, True),
        (b"SHOW TABLES", True, False),
        (b"EXPLAIN SELECT 1", True, False),
        (b"CREATE TABLE t (a Int8) ENGINE = Memory", False, False),
        (b"INSERT INTO t SELECT 1", False, False),
    ],
)
def test_statements_are_told_apart(text: bytes, answers: bool, streams: bool) -> None:
    statement = read_statement(text)
    assert (statement.answers, statement.streams) == (answers, streams)


def test_killing_by_query_id_finds_the_clients_id() -> None:
    assert b"Settings['log_comment']" in read_statement(b"KILL QUERY WHERE query_id = 'a'").text
    assert read_statement(b"SELECT query_id FROM system.processes").text == b"SELECT query_id FROM system.processes"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b" ", 62),
        (b"SELECT 1; SELECT 2", 62),
        (b"SET a = 1", 48),
        (b"USE db", 48),
        (b"CREATE OR REPLACE TEMPORARY TABLE t (a Int8)", 48),
        (b"SELECT 1 INTO OUTFILE 'x'", 358),
        (b"INSERT INTO t SELECT * FROM input('a Int8') FORMAT CSV", 48),
    ],
)
def test_what_is_not_offered_is_refused_by_name(text: bytes, code: int) -> None:
    with pytest.raises(ClickHouseError) as caught:
        read_statement(text)
    assert caught.value.code == code


def test_reading_a_file_of_the_server_is_refused() -> None:
    with pytest.raises(ClickHouseError, match="INFILE"):
        read_insert_head(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", final=True)


def test_quotes_and_backslashes_stay_inside_a_literal() -> None:
    assert quote("a'b\\") == b"'a\\'b\\\\'"
