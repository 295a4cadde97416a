"""The parts of the ClickHouse front that need no engine."""

import gzip
import socket
import sys
import zlib
from pathlib import Path

import lz4.frame
import pytest

from auditstream_local.clickhouse import _listen
from auditstream_local.clickhouse_body import BatchBuilder, Decoder, Spool
from auditstream_local.clickhouse_errors import ClickHouseError, exception_block
from auditstream_local.clickhouse_reception import columns_of
from auditstream_local.clickhouse_request import check_origin, check_password, read_options
from auditstream_local.clickhouse_response import choose_encoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = bytes(range(256)) * 1000
COMPRESSED = {
    "gzip": gzip.compress(DATA),
    "deflate": zlib.compress(DATA),
    "zstd": zstd.compress(DATA),
    "lz4": bytes(lz4.frame.compress(DATA)),
}


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("piece", [1000, 10_000_000])
def test_a_body_of_several_frames_is_decompressed_in_pieces(encoding: str, piece: int) -> None:
    body, decoder = COMPRESSED[encoding] * 2, Decoder(encoding)
    found = b"".join(decoder.decode(body[start : start + piece]) for start in range(0, len(body), piece))
    decoder.finish()
    assert found == DATA * 2


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_body_cut_short_is_refused(encoding: str) -> None:
    decoder = Decoder(encoding)
    decoder.decode(COMPRESSED[encoding][:-5])
    with pytest.raises(ClickHouseError, match="ends within a frame"):
        decoder.finish()


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_garbage_is_refused(encoding: str) -> None:
    with pytest.raises(ClickHouseError, match="CANNOT_DECOMPRESS"):
        Decoder(encoding).decode(b"this is not compressed at all")


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(ClickHouseError, match="'br'"):
        Decoder("br")


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_response_can_be_read_as_it_comes(encoding: str) -> None:
    chosen = choose_encoder(f"identity, {encoding};q=1.0")
    assert chosen is not None
    name, encoder = chosen
    decoder = Decoder(name)
    assert decoder.decode(encoder.compress(b"first")) == b"first"
    rest = encoder.compress(b"second" * 10_000)
    assert decoder.decode(rest + encoder.flush()) == b"second" * 10_000
    decoder.finish()


def test_no_compression_without_one_that_both_know() -> None:
    assert choose_encoder("br, identity") is None


def test_data_go_to_a_file_and_leave_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    intake = BatchBuilder(b"INSERT INTO t FORMAT CSV\n", Decoder(""), spool)
    for _ in range(3):
        intake.feed(b"1,2\n" * 1000)
    intake.finish()
    assert intake.insert is not None
    assert intake.path is not None
    assert intake.path.read_bytes() == b"1,2\n" * 3000
    intake.discard()
    intake.feed(b"late")
    assert list(spool.directory.iterdir()) == []


def test_a_statement_can_be_split_between_url_and_body(tmp_path: Path) -> None:
    intake = BatchBuilder(b"SELECT\n", Decoder(""), Spool(tmp_path))
    intake.feed(b" 1")
    intake.finish()
    assert (intake.insert, intake.text) == (None, b"SELECT\n 1")


def test_a_spool_forgets_what_a_killed_process_left(tmp_path: Path) -> None:
    left = Spool(tmp_path).new_path()
    left.touch()
    assert list(Spool(tmp_path).directory.iterdir()) == []


def test_parameters_are_sorted_out() -> None:
    options = read_options(
        [
            *[("query", "SELECT 1"), ("database", "d"), ("query_id", "q"), ("session_id", "s")],
            *[("param_x", "1"), ("max_threads", "2"), ("wait_end_of_query", "1"), ("ext_format", "CSV")],
        ],
        {"x-clickhouse-format": "JSON", "x-clickhouse-database": "other"},
        frozenset({"ext"}),
    )
    assert (options.query, options.database, options.query_id, options.format) == ("SELECT 1", "d", "q", "JSON")
    assert options.parameters == {"x": "1"}
    assert options.settings == {"max_threads": "2", "log_comment": "q"}
    assert options.external == {"ext": {"format": "CSV"}}
    assert (options.wait, options.compress) == (True, False)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [("compress", "1", 48), ("role", "admin", 48), ("a`b", "1", 115), ("param_x", "\udcff", 36)],
)
def test_parameters_that_mean_what_is_not_offered_are_refused(key: str, value: str, code: int) -> None:
    with pytest.raises(ClickHouseError) as caught:
        read_options([(key, value)], {})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("pairs", "headers"),
    [
        ([("password", "secret")], {}),
        ([], {"x-clickhouse-key": "secret"}),
        ([], {"authorization": "Basic YW55Ym9keTpzZWNyZXQ="}),
    ],
)
def test_the_password_is_taken_wherever_clickhouse_takes_it(
    pairs: list[tuple[str, str]], headers: dict[str, str]
) -> None:
    check_password("secret", pairs, headers)
    with pytest.raises(ClickHouseError) as caught:
        check_password("other", pairs, headers)
    assert (caught.value.code, caught.value.status) == (516, 403)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic !"}, {"authorization": "Bearer x"}])
def test_no_password_is_a_wrong_one(headers: dict[str, str]) -> None:
    with pytest.raises(ClickHouseError):
        check_password("secret", [], headers)


def test_pages_of_other_sites_are_refused() -> None:
    check_origin({"host": "127.0.0.1:8123"})
    check_origin({"host": "127.0.0.1:8123", "origin": "http://127.0.0.1:8123"})
    for origin in ("http://evil.example", "null"):
        with pytest.raises(ClickHouseError):
            check_origin({"host": "127.0.0.1:8123", "origin": origin})


def test_an_engines_error_keeps_its_code_and_its_bytes() -> None:
    error = ClickHouseError.from_engine(b"Code: 27. DB::Exception: Code: 27. DB::Exception: before: \xff. (X)")
    assert (error.code, error.status) == (27, 400)
    assert error.body("26.9") == b"Code: 27. DB::Exception: before: \xff. (X) (version 26.9 (chDB))\n"


def test_the_block_of_an_exception_has_its_length_and_its_tag_twice() -> None:
    block = exception_block(b"Code: 1. text\n", "tag")
    assert block == b"\r\n__exception__\r\ntag\r\nCode: 1. text\n14 tag\r\n__exception__\r\n"


def test_types_become_columns() -> None:
    assert columns_of("Int8, Map(String, Array(Int8)),String") == "_1 Int8, _2 Map(String, Array(Int8)), _3 String"


def test_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    with _listen("127.0.0.1", 0) as listener:
        # asyncio turns Nagle's algorithm off for sockets of this protocol alone.
        assert listener.proto == socket.IPPROTO_TCP
