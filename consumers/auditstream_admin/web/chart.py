"""The histogram as a picture: where the bars of an SVG stand, and what is written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from auditstream_admin.events.histogram import Histogram, HistogramBucket
from auditstream_admin.web.formatting import local
from auditstream_schemas.timestamp import NANOSECONDS

HEIGHT = 100
"""Of the picture, in its own units; its width is the number of buckets, times `STEP`."""
STEP = 10

_LEAST = 2.5
_LEAST_FAILED = 1.5
"""What happened once is seen beside what happened a million times."""
_TICKS = 5
_DAY = 86_400 * NANOSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bucket.

    Attributes:
        bucket: What it shows.
        x: Left edge of its place.
        top: Where the bar begins; `HEIGHT` for an empty one.
        failed_top: Where its failed part begins.
        label: Time and counts, for people.
    """

    bucket: HistogramBucket
    x: int
    top: float
    failed_top: float
    label: str

    @property
    def height(self) -> float:
        """Of the whole bar."""
        return round(HEIGHT - self.top, 2)

    @property
    def failed_height(self) -> float:
        """Of its failed part."""
        return round(HEIGHT - self.failed_top, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The picture.

    Attributes:
        bars: One a bucket, oldest first.
        ticks: Labels of the axis, evenly spaced from its beginning to its end.
        width: Of the picture, in its own units.
        bucket: How long a bucket is, for people.
    """

    bars: Sequence[Bar]
    ticks: Sequence[str]
    width: int
    bucket: str


def chart(histogram: Histogram, zone: tzinfo) -> Chart:
    """Draw a histogram; failed events lie at the foot of their bar."""
    peak = max(histogram.peak, 1)
    bars = []
    for number, bucket in enumerate(histogram.buckets):
        bars.append(
            Bar(
                bucket=bucket,
                x=number * STEP,
                top=_top(bucket.events, peak, least=_LEAST),
                failed_top=_top(bucket.failed, peak, least=_LEAST_FAILED),
                label=_label(bucket, zone),
            )
        )
    span = histogram.span
    length = span.end - span.start
    ticks = [_tick(span.start + length * number // (_TICKS - 1), length, zone) for number in range(_TICKS)]
    return Chart(bars=bars, ticks=ticks, width=max(len(bars), 1) * STEP, bucket=_length(histogram.width))


def _top(events: int, peak: int, *, least: float) -> float:
    return round(HEIGHT - (max(events / peak * HEIGHT, least) if events else 0), 2)


def _label(bucket: HistogramBucket, zone: tzinfo) -> str:
    first, last = local(bucket.start, zone), local(bucket.end, zone)
    end = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last.day} {last:%b %H:%M}"
    events = "1 event" if bucket.events == 1 else f"{bucket.events:,} events"
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
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % unit == 0 and seconds >= unit:
            count = seconds // unit
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds} seconds"
