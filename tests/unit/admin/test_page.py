"""What the page is made of: chips, the tree of actions, the picture of the histogram, marked JSON, words."""

import json
from datetime import UTC
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.events.completeness import SECONDS, CachedCompleteness, Completeness
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.histogram import Histogram, HistogramBucket
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.web import formatting
from auditstream_admin.web.chart import HEIGHT, chart
from auditstream_admin.web.filter_view import action_tree, chips, form_time
from auditstream_admin.web.json_markup import marked
from auditstream_schemas.timestamp import NANOSECONDS
from tests.support.events import texts

BERLIN = ZoneInfo("Europe/Berlin")


def test_each_chip_takes_its_own_condition_off_and_no_other() -> None:
    given = [
        ("range", "7d"), ("action", "context.*"), ("action", "user.create"), ("actor", "a b"), ("success", "false"),
        ("meta", "region=eu"), ("meta", "k=v=w"), ("q", "word"), ("tz", "Europe/Berlin"),
    ]  # fmt: skip
    found = chips(EventFilter.read(given), BERLIN)
    assert [(chip.label, chip.value) for chip in found] == [
        ("Time", "Last 7 days"), ("Action", "context.*"), ("Action", "user.create"), ("Actor", "a b"),
        ("Outcome", "Failed"), ("region", "eu"), ("k", "v=w"), ("Payload has", "word"),
    ]  # fmt: skip
    for number, chip in enumerate(found):
        rest = EventFilter.read([pair for place, pair in enumerate(given) if place != number])
        assert chip.without == f"/events?{rest.query()}"


def test_a_range_of_ones_own_survives_the_form_without_losing_an_event() -> None:
    start, end = 1_700_000_000_123_456_789, 1_700_000_100_000_000_001
    fields = [
        ("from", form_time(start, BERLIN, edge="start")),
        ("to", form_time(end, BERLIN, edge="end")),
        ("tz", "Europe/Berlin"),
    ]
    again = EventFilter.read(fields).time
    assert again.start == 1_700_000_000_123_000_000
    assert again.end == 1_700_000_100_001_000_000


def test_the_tree_has_every_action_and_keeps_patterns_of_ones_own() -> None:
    names = [("context.create", "made"), ("context.env_var.delete", "gone"), ("user.create", "new")]
    root, others = action_tree(names, ["context.*", "user.create", "*.delete"])
    context = root.branches["context"]
    assert context.is_ticked
    assert context.branches["env_var"].glob == "context.env_var.*"
    assert [branch.glob for branch in context.branches["env_var"].branches.values()] == ["context.env_var.delete"]
    assert root.branches["user"].holds_tick
    assert not root.branches["user"].is_ticked
    assert others == ["*.delete"]


def test_bars_are_as_high_as_their_counts_and_one_failure_is_seen_among_a_million() -> None:
    span = TimeSpan(start=0, end=3 * 60 * NANOSECONDS)
    buckets = tuple(
        HistogramBucket(
            start=number * 60 * NANOSECONDS, end=(number + 1) * 60 * NANOSECONDS, events=events, failed=failed
        )
        for number, (events, failed) in enumerate([(1_000_000, 1), (500_000, 500_000), (0, 0)])
    )
    width = 60 * NANOSECONDS
    drawn = chart(Histogram(span=span, width=width, buckets=buckets, is_exact=True, counted_from=None), UTC)
    full, half, empty = drawn.bars
    assert (full.top, half.top, empty.top) == (0, HEIGHT / 2, HEIGHT)
    assert 0 < full.failed_height < 5
    assert half.failed_top == half.top
    assert full.label == "1 Jan 1970 00:00:00 to 00:01:00: 1,000,000 events, 1 failed"
    assert drawn.bucket == "minute"


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | texts(), st.lists, max_leaves=8))
def test_marked_json_is_the_json_and_no_text_of_it_is_markup(value: object) -> None:
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


def test_lapses_and_sizes_read_as_people_say_them() -> None:
    assert formatting.lapse(0, 123_000_000) == "0.123 s later"
    assert formatting.lapse(7200 * NANOSECONDS, 0) == "2.0 h earlier"
    assert [formatting.lasting(seconds) for seconds in (0.2, 59.6, 119, 150, 7100, 7200, 200_000)] == [
        "1 s", "60 s", "119 s", "2 min", "118 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [formatting.size(count) for count in (0, 999, 1000, 19_482_113, 5 * 10**15)] == [
        "0 B", "999 B", "1.0 kB", "19.5 MB", "5000 TB",
    ]  # fmt: skip


def test_the_books_are_asked_for_once_in_a_while() -> None:
    answers = iter([Completeness(until=1, faults=0), Completeness(until=2, faults=0)])
    now = [0.0]
    kept = CachedCompleteness(lambda: next(answers), lambda: now[0])
    assert (kept.get().until, kept.get().until) == (1, 1)
    now[0] = SECONDS
    assert kept.get().until == 2
