from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from auditstream_admin.events.histogram import MAX_BUCKETS, bucket_width, fill_buckets, first_bucket
from auditstream_admin.events.time_range import FIRST_WINDOW, TimeSpan, Windows, doubling
from auditstream_schemas.timestamp import NANOSECONDS

DAY = 24 * 3600 * NANOSECONDS
spans = st.tuples(st.integers(-(10**18), 10**18), st.integers(1, 400 * DAY)).map(
    lambda pair: TimeSpan(start=pair[0], end=pair[0] + pair[1])
)


@given(span=spans, newest_first=st.booleans(), results=st.lists(st.integers(0, 50), min_size=1))
def test_windows_cover_the_range_once_in_order(span: TimeSpan, newest_first: bool, results: list[int]) -> None:
    windows = Windows(span, newest_first=newest_first)
    cut = []
    for window in windows:
        cut.append(window)
        windows.widen(results=results[len(cut) % len(results)], missing=51)
    assert windows.is_done
    in_time = cut[::-1] if newest_first else cut
    assert (in_time[0].start, in_time[-1].end) == (span.start, span.end)
    assert all(left.end == right.start for left, right in pairwise(in_time))
    assert all(window.start < window.end for window in cut)
    assert len(cut) <= 410


def test_windows_grow_without_results_and_are_estimated_from_results() -> None:
    year = TimeSpan(start=0, end=366 * DAY)
    windows = Windows(year, newest_first=True)
    count = 0
    for _ in windows:
        windows.widen(results=0, missing=51)
        count += 1
    assert count == 4
    windows = Windows(year, newest_first=True)
    lengths = []
    for window in windows:
        lengths.append((window.end - window.start) // DAY)
        windows.widen(results=10 * len(lengths), missing=40)
    assert lengths[:2] == [1, 5]
    assert TimeSpan(start=366 * DAY - FIRST_WINDOW, end=366 * DAY) == next(iter(Windows(year, newest_first=True)))


@given(spans)
def test_doubling_windows_cover_the_range_once(span: TimeSpan) -> None:
    cut = list(doubling(span, first=30 * DAY))[::-1]
    assert (cut[0].start, cut[-1].end) == (span.start, span.end)
    assert all(left.end == right.start for left, right in pairwise(cut))


@given(span=spans, offset=st.integers(-14, 14).map(lambda hours: hours * 3600 * NANOSECONDS), data=st.data())
def test_buckets_cover_the_range_and_each_event_is_in_one_bucket(
    span: TimeSpan, offset: int, data: st.DataObject
) -> None:
    width = bucket_width(span)
    origin = first_bucket(span, width, offset=offset)
    assert origin <= span.start < origin + width
    moments = data.draw(st.lists(st.integers(span.start, span.end - 1), max_size=20))
    counts: dict[int, tuple[int, int]] = {}
    for moment in moments:
        number = (moment - origin) // width
        counts[number] = (counts.get(number, (0, 0))[0] + 1, 0)
    buckets = fill_buckets(span, width, origin, counts)
    assert len(buckets) <= MAX_BUCKETS + 1
    assert (buckets[0].start, buckets[-1].end) == (span.start, span.end)
    assert all(left.end == right.start for left, right in pairwise(buckets))
    for bucket in buckets:
        assert bucket.events == sum(bucket.start <= moment < bucket.end for moment in moments)


def test_bucket_width_grows_with_the_range() -> None:
    def width(seconds: int) -> int:
        return bucket_width(TimeSpan(start=0, end=seconds * NANOSECONDS)) // NANOSECONDS

    assert [width(seconds) for seconds in (1, 900, 3600, 86_400, 7 * 86_400)] == [1, 10, 60, 1800, 10_800]
    assert [width(days * 86_400) for days in (30, 90, 366, 20_000)] == [43_200, 86_400, 604_800, 18_144_000]
