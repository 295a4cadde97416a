"""The parts of the page: chips, the tree of actions, the chart, JSON markup, formatting."""

import json
import re
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.event_store import COMPLETENESS_SECONDS, EventStore
from auditstream_admin.events.histogram import Histogram, HistogramBucket
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.web import formatting
from auditstream_admin.web.chart import HEIGHT, chart
from auditstream_admin.web.filter_view import action_tree, chips, form_time
from auditstream_admin.web.formatting import indented, marked
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import NANOSECONDS
from tests.support.events import json_objects, payload_texts, texts

BERLIN = ZoneInfo("Europe/Berlin")


def test_a_chip_removes_its_own_condition_only() -> None:
    parameters = [
        ("range", "7d"), ("action", "context.*"), ("action", "user.create"), ("actor", "a b"), ("success", "false"),
        ("meta", "region=eu"), ("meta", "k=v=w"), ("q", "word"), ("tz", "Europe/Berlin"),
    ]  # fmt: skip
    active = chips(EventFilter.read(parameters), BERLIN)
    assert [(chip.label, chip.value) for chip in active] == [
        ("Time", "Last 7 days"), ("Action", "context.*"), ("Action", "user.create"), ("Actor", "a b"),
        ("Outcome", "Failed"), ("region", "eu"), ("k", "v=w"), ("Payload contains", "word"),
    ]  # fmt: skip
    for number, chip in enumerate(active):
        rest = EventFilter.read([pair for other, pair in enumerate(parameters) if other != number])
        assert chip.without == f"/events?{rest.query()}"


def test_a_custom_range_never_gets_smaller_in_the_form() -> None:
    start, end = 1_700_000_000_123_456_789, 1_700_000_100_000_000_001
    fields = [
        ("from", form_time(start, BERLIN, edge="start")),
        ("to", form_time(end, BERLIN, edge="end")),
        ("tz", "Europe/Berlin"),
    ]
    again = EventFilter.read(fields).time
    assert again.start == 1_700_000_000_123_000_000
    assert again.end == 1_700_000_100_001_000_000


def test_the_tree_contains_every_action_and_keeps_other_patterns() -> None:
    names = [("context.create", "made"), ("context.env_var.delete", "gone"), ("user.create", "new")]
    root, others = action_tree(names, ["context.*", "user.create", "*.delete"])
    context = root.branches["context"]
    assert context.is_checked
    assert context.branches["env_var"].glob == "context.env_var.*"
    assert [branch.glob for branch in context.branches["env_var"].branches.values()] == ["context.env_var.delete"]
    assert root.branches["user"].has_checked
    assert not root.branches["user"].is_checked
    assert others == ["*.delete"]


def test_bar_heights_follow_the_counts_and_one_failure_among_a_million_is_visible() -> None:
    span = TimeSpan(start=0, end=3 * 60 * NANOSECONDS)
    buckets = tuple(
        HistogramBucket(
            start=number * 60 * NANOSECONDS, end=(number + 1) * 60 * NANOSECONDS, events=events, failed=failed
        )
        for number, (events, failed) in enumerate([(1_000_000, 1), (500_000, 500_000), (0, 0)])
    )
    width = 60 * NANOSECONDS
    picture = chart(Histogram(span=span, width=width, buckets=buckets, is_exact=True, counted_from=None), UTC)
    full, half, empty = picture.bars
    assert (full.height, half.height, empty.height) == (HEIGHT, HEIGHT / 2, 0)
    assert 0 < full.failed_height < 5
    assert half.failed_height == half.height
    assert full.label == "1 Jan 1970 00:00:00 to 00:01:00: 1,000,000 events, 1 failed"
    assert picture.bucket == "1 minute"


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | texts(), st.lists, max_leaves=8))
def test_marked_json_has_the_same_content_and_is_escaped(value: object) -> None:
    text = json.dumps({"<b>&": value}, ensure_ascii=False)
    html = str(marked(text))
    assert "<b>" not in html
    bare = html
    for kind in ("key", "text", "word", "number"):
        bare = bare.replace(f'<bdi class="j-{kind}">', "")
    bare = bare.replace("</bdi>", "")
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&")):
        bare = bare.replace(entity, character)
    assert json.loads(bare) == json.loads(text)


@given(payload_texts())
def test_indenting_changes_no_digit_and_no_value(text: str) -> None:
    out = indented(text)
    assert json.loads(out) == json.loads(text) or "9" * 20 in text
    assert re.findall(r"[0-9]+", out) == re.findall(r"[0-9]+", text)


@given(json_objects())
def test_indenting_equals_that_of_the_json_module(value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        expected = json.dumps(value, ensure_ascii=False, indent=2)
    except ValueError:
        return
    assert indented(text) == expected


def test_durations_and_sizes_are_rounded() -> None:
    assert formatting.lapse(0, 123_000_000) == "0.123 s later"
    assert formatting.lapse(7200 * NANOSECONDS, 0) == "2.0 h earlier"
    assert [formatting.duration(seconds) for seconds in (0.2, 59.6, 119, 150, 7100, 7200, 200_000)] == [
        "1 s", "60 s", "119 s", "2 min", "118 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [formatting.size(count) for count in (0, 999, 1000, 19_482_113, 5 * 10**15)] == [
        "0 B", "999 B", "1.0 kB", "19.5 MB", "5000 TB",
    ]  # fmt: skip


def test_completeness_is_read_again_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter([[(1, 1, 0)], [(2, 1, 0)]])
    monkeypatch.setattr(EventStore, "_rows", lambda *_arguments: next(results))
    now = [0.0]
    store = EventStore(ClickHouseSettings(), clock=lambda: now[0])
    assert (store.completeness().until, store.completeness().until) == (1, 1)
    now[0] = COMPLETENESS_SECONDS
    assert store.completeness().until == 2
