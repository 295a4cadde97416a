import json

import pytest

from auditstream_export import ExportFilter, ExportRequest
from auditstream_schemas.errors import ExportError
from auditstream_schemas.timestamp import parse_moment, parse_timestamp
from auditstream_storage.event_filter import glob_to_like


def test_without_conditions_every_event_matches() -> None:
    assert ExportFilter().where() == ("true", {})
    assert ExportFilter().to_dict() == {}


def test_conditions_are_joined_by_and_and_values_are_parameters() -> None:
    event_filter = ExportFilter(
        scopes=("'", "org"),
        actions=("context.*", "user.logged_in"),
        scope="' OR 1 --",
        actor="{x:String}",
        target="\\",
        success=False,
        request="r",
        metadata=(("'", "{y:String}"), ("k", "")),
        text="Deploy '); läßt",
    )
    sql, parameters = event_filter.where()
    assert sql == (
        "scope_id IN {scopes:Array(String)}"
        " AND (action LIKE {action_0:String} OR action LIKE {action_1:String})"
        " AND scope_id = {scope:String} AND actor.id = {actor:String} AND target.id = {target:String}"
        " AND request.id = {request:String} AND success = {success:Bool}"
        " AND metadata[{meta_key_0:String}] = {meta_value_0:String} AND mapContainsKey(metadata, {meta_key_0:String})"
        " AND metadata[{meta_key_1:String}] = {meta_value_1:String} AND mapContainsKey(metadata, {meta_key_1:String})"
        " AND (hasToken(lowerUTF8(payload), {word_0:String})"
        " OR hasToken(lowerUTF8(payload), concat('n', {word_0:String}))"
        " OR hasToken(lowerUTF8(payload), concat('t', {word_0:String}))"
        " OR hasToken(lowerUTF8(payload), concat('r', {word_0:String}))"
        " OR hasToken(lowerUTF8(payload), concat('b', {word_0:String}))"
        " OR hasToken(lowerUTF8(payload), concat('f', {word_0:String})))"
        " AND position(lowerUTF8(payload), {word_1:String}) > 0"
    )
    assert parameters == {
        "scopes": ["'", "org"],
        "action_0": "context.%",
        "action_1": "user.logged\\_in",
        "scope": "' OR 1 --",
        "actor": "{x:String}",
        "target": "\\",
        "success": False,
        "request": "r",
        "meta_key_0": "'",
        "meta_value_0": "{y:String}",
        "meta_key_1": "k",
        "meta_value_1": "",
        "word_0": "deploy",
        "word_1": "läßt",
    }
    assert ExportFilter.from_dict(json.loads(json.dumps(event_filter.to_dict()))) == event_filter


def test_the_manifest_shows_the_conditions_that_are_given() -> None:
    event_filter = ExportFilter(actions=("a.*",), actor="u", success=False)
    assert event_filter.to_dict() == {"action": ["a.*"], "actor": "u", "success": False}


@pytest.mark.parametrize("name", ["scope", "actor", "target", "request"])
def test_an_empty_id_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match=f"id of the {name} to filter by is empty"):
        ExportFilter(**{name: ""})  # type: ignore[arg-type]


def test_an_empty_glob_is_refused() -> None:
    with pytest.raises(ExportError, match="glob of an action is empty"):
        ExportFilter(actions=("a.b", ""))


@pytest.mark.parametrize("scopes", [(), ("",), ("org", "")])
def test_an_empty_list_of_scopes_is_refused(scopes: tuple[str, ...]) -> None:
    with pytest.raises(ExportError, match="list of scopes is empty"):
        ExportFilter(scopes=scopes)


def test_a_text_without_words_is_refused() -> None:
    with pytest.raises(ExportError, match="has no word"):
        ExportFilter(text=" -- ")


@pytest.mark.parametrize(
    ("glob", "like"),
    [
        ("*", "%"),
        ("context.*", "context.%"),
        ("?.b", "_.b"),
        ("env_var.100%", "env\\_var.100\\%"),
        ("a\\*", "a\\\\%"),
        ("[ab].c", "[ab].c"),
    ],
)
def test_only_star_and_question_mark_are_special_in_a_glob(glob: str, like: str) -> None:
    assert glob_to_like(glob) == like


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("1969-12-31", "1969-12-31T00:00:00Z"),
        ("2026-01-31T01:00:00.123456789+02:00", "2026-01-30T23:00:00.123456789Z"),
        ("2026-01-31T01:00:00.000000001Z", "2026-01-31T01:00:00.000000001Z"),
    ],
)
def test_a_moment_is_a_date_in_utc_or_a_time_with_a_zone(text: str, moment: str) -> None:
    assert parse_moment(text) == parse_timestamp(moment)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2026-01-31T00:00:00", "Z for UTC"),
        ("2026-02-30", "day"),
        ("2026-1-3", "2026-01-31"),
        ("20260131", "2026-01-31"),
        ("2026-W05-6", "2026-01-31"),
        ("yesterday", "2026-01-31"),
        ("9999-12-31", "2262"),
        ("2026-01-31T00:00:00.1234567891Z", "nine"),
        ("", "2026-01-31"),
    ],
)
def test_any_other_moment_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_moment(text)


@pytest.mark.parametrize("end", [5, 4])
def test_an_empty_range_is_refused(end: int) -> None:
    with pytest.raises(ExportError, match="range is empty"):
        ExportRequest(start=5, end=end)
