"""Positions and labels of the histogram's SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from auditstream_admin.events.histogram import Histogram, HistogramBucket
from auditstream_admin.events.time_range import local
from auditstream_admin.web.formatting import counted
from auditstream_schemas.timestamp import NANOSECONDS

HEIGHT = 100
"""Height of the SVG in its own units; the width is the number of buckets times `STEP`."""
STEP = 10

_MIN_HEIGHT = 2.5
_MIN_FAILED_HEIGHT = 1.5
"""Minimum heights, so that one event is visible next to a bar of a million events."""
_TICKS = 5
_DAY = 86_400 * NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The bar of one bucket, in units of the SVG; its failed part is at the bottom. The label has time and counts."""

    bucket: HistogramBucket
    x: int
    height: float
    failed_height: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The bars of a histogram, and the labels of its axis, evenly spaced from start to end.

    ``width`` is that of the SVG, in its own units; ``bucket`` is the length of a bucket, as text.
    """

    bars: Sequence[Bar]
    ticks: Sequence[str]
    width: int
    bucket: str


def chart(histogram: Histogram, zone: tzinfo) -> Chart:
    """The chart of a histogram, with times in a zone."""
    peak = max(histogram.peak, 1)
    bars = [
        Bar(
            bucket=bucket,
            x=number * STEP,
            height=_height(bucket.events, peak, minimum=_MIN_HEIGHT),
            failed_height=_height(bucket.failed, peak, minimum=_MIN_FAILED_HEIGHT),
            label=_label(bucket, zone),
        )
        for number, bucket in enumerate(histogram.buckets)
    ]
    span = histogram.span
    length = span.end - span.start
    ticks = [_tick(span.start + length * number // (_TICKS - 1), length, zone) for number in range(_TICKS)]
    return Chart(bars=bars, ticks=ticks, width=max(len(bars), 1) * STEP, bucket=_length(histogram.width))


def _height(events: int, peak: int, *, minimum: float) -> float:
    return round(max(events / peak * HEIGHT, minimum), 2) if events else 0


def _label(bucket: HistogramBucket, zone: tzinfo) -> str:
    first, last = local(bucket.start, zone), local(bucket.end, zone)
    end = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last.day} {last:%b %H:%M}"
    events = counted(bucket.events, "event")
    return f"{first.day} {first:%b %Y %H:%M:%S} to {end}: {events}, {bucket.failed:,} failed"


def _tick(nanoseconds: int, length: int, zone: tzinfo) -> str:
    moment = local(nanoseconds, zone)
    if length > 200 * _DAY:
        return f"{moment:%b %Y}"
    if length > 3 * _DAY:
        return f"{moment.day} {moment:%b}"
    if length > _DAY // 8:
        return f"{moment.day} {moment:%b %H:%M}"
    return f"{moment:%H:%M:%S}"


def _length(nanoseconds: int) -> str:
    seconds = nanoseconds // NANOSECONDS
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"))
    unit, name = next((unit for unit in units if seconds % unit[0] == 0), (1, "second"))
    return counted(seconds // unit, name)
