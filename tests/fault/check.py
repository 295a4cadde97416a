"""Compares the state at the end of a schedule with the records that were sent.

The emitter knows which records the broker acknowledged. The topic shows their order, and which of the other records
the broker stored. From both follows which rows every reader must see.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from auditstream_ops.ledger.reconcile import LISTED_AT_MOST
from tests.fault.evidence import Evidence, Row
from tests.fault.load import LoadRecord

_MAX_SHOWN = 3


@dataclass(slots=True, kw_only=True)
class CheckResult:
    """The faults of a schedule and its figures.

    Attributes:
        faults: A sentence for each kind of fault; empty if the schedule passed.
        sent: Records given to the emitter's client, records sent again included.
        acked: Records acknowledged.
        on_topic: Records on the topics, deleted topics included.
        visible: Rows that readers see.
        duplicates: Second deliveries dropped.
        conflicts: Dead letters of other content under a known id.
        dead_letters: Dead letters of all reasons.
        raw_minus_visible: Rows that wait for a merge.
        doubled: Ids that are visible twice after a race, as reconcile reports them.
        batches: Lines of the ledger.
        details: All examples of each fault.
    """

    faults: list[str] = field(default_factory=list)
    sent: int = 0
    acked: int = 0
    on_topic: int = 0
    visible: int = 0
    duplicates: int = 0
    conflicts: int = 0
    dead_letters: int = 0
    raw_minus_visible: int = 0
    doubled: int = 0
    batches: int = 0
    details: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, name: str, examples: Iterable[object]) -> None:
        """Add a fault, if it has examples."""
        listed = [str(example) for example in examples]
        if listed:
            first = ", ".join(listed[:_MAX_SHOWN])
            self.faults.append(f"{len(listed)} {name}: {first}{' ...' if len(listed) > _MAX_SHOWN else ''}")
            self.details[name] = listed


@dataclass(frozen=True, slots=True, kw_only=True)
class _TopicRecord:
    """A record on a topic.

    Attributes:
        record: The record that was sent.
        coordinates: Topic id, partition, offset.
        is_required: Whether it must be in the ledger; not if its topic was deleted before a sink had read it.
    """

    record: LoadRecord
    coordinates: tuple[str, int, int]
    is_required: bool


def check(evidence: Evidence, records: Sequence[LoadRecord], sent: int) -> CheckResult:
    """Compare the state with the records."""
    result = CheckResult(
        sent=sent,
        acked=sum(1 for record in records if record.acked),
        visible=len(evidence.rows),
        dead_letters=len(evidence.dead_letters),
        raw_minus_visible=evidence.raw - len(evidence.rows),
        doubled=evidence.findings.other_keys + evidence.findings.other_contents,
        batches=sum(check.batches for ledger in evidence.ledgers for check in ledger.partitions),
    )
    topic_records = list(_on_topics(evidence, records))
    result.on_topic = len(topic_records)
    _check_broker(result, evidence, records, topic_records)
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        rows[row.identity].append(row)
    by_id: dict[str, list[_TopicRecord]] = defaultdict(list)
    for topic_record in topic_records:
        if topic_record.record.fate == "event":
            by_id[topic_record.record.identity].append(topic_record)
    _check_ids(result, rows, by_id)
    doubled = _check_contents(result, evidence, rows, by_id)
    _check_refused(result, evidence, topic_records, rows)
    _check_ledger(result, evidence, topic_records, len(doubled))
    return result


def _on_topics(evidence: Evidence, records: Sequence[LoadRecord]) -> Iterable[_TopicRecord]:
    ends = {
        (str(ledger.topic_id), check.partition): check.last_offset
        for ledger in evidence.ledgers
        for check in ledger.partitions
    }
    for topic_id, positions in evidence.topics.items():
        for partition, offset, number in positions:
            yield _TopicRecord(
                record=records[number],
                coordinates=(topic_id, partition, offset),
                is_required=topic_id == evidence.topic_id or offset <= ends.get((topic_id, partition), -1),
            )


def _check_broker(
    result: CheckResult, evidence: Evidence, records: Sequence[LoadRecord], topic_records: Sequence[_TopicRecord]
) -> None:
    """Every acknowledged record is at its coordinates; otherwise the broker is at fault, not the sink."""
    topic_ids = list(evidence.topics)
    stored = {(topic_record.coordinates, topic_record.record.number) for topic_record in topic_records}
    result.fault(
        "records that the broker acknowledged and lost",
        (
            f"{(incarnation, partition, offset)}"
            for record in records
            for incarnation, partition, offset in record.acked
            if ((topic_ids[incarnation], partition, offset), record.number) not in stored
        ),
    )
    result.fault("records without an acknowledgement", (record.number for record in records if not record.acked))


def _check_ids(
    result: CheckResult, rows: Mapping[str, Sequence[Row]], by_id: Mapping[str, Sequence[_TopicRecord]]
) -> None:
    """Every acknowledged id is visible, and no other."""
    required = {
        identity for identity, group in by_id.items() if any(topic_record.is_required for topic_record in group)
    }
    result.fault("acknowledged ids that are not visible", sorted(required - rows.keys()))
    result.fault("visible ids that were not sent", sorted(rows.keys() - by_id.keys()))


def _check_contents(
    result: CheckResult,
    evidence: Evidence,
    rows: Mapping[str, Sequence[Row]],
    by_id: Mapping[str, Sequence[_TopicRecord]],
) -> set[str]:
    """Each id is visible once with its first content; other content is a dead letter. Returns ids of races."""
    doubled, wrong, missing, needless, misplaced = [], [], [], [], []
    raced = set()
    for identity, group in by_id.items():
        seen = {row.digest for row in rows.get(identity, ())}
        digests = {topic_record.coordinates: topic_record.record.digest for topic_record in group}
        firsts = _firsts(group)
        if len(rows.get(identity, ())) != len(seen) or len(seen) > max(1, len(firsts)):
            doubled.append(identity)
        if len(seen) > 1:
            raced.add(identity)
        if not seen <= firsts:
            wrong.append(identity)
        misplaced += [row for row in rows.get(identity, ()) if digests.get(row.coordinates) != row.digest]
        for topic_record in group:
            reason = evidence.dead_letters.get(topic_record.coordinates)
            if reason is None:
                if topic_record.is_required and topic_record.record.digest not in seen:
                    missing.append(topic_record.coordinates)
            elif reason != "conflict" or (topic_record.record.digest in seen and len(seen) == 1):
                needless.append((topic_record.coordinates, reason))
    result.fault("ids visible twice", doubled)
    result.fault("ids with another content than the first", wrong)
    result.fault("rows with wrong coordinates", misplaced)
    result.fault("conflicts that are not among the dead letters", missing)
    result.fault("valid events among the dead letters", needless)
    reported = {str(event.id) for event in evidence.findings.repeated}
    # reconcile lists a hundred of them, and counts the others.
    counted = evidence.findings.other_keys + evidence.findings.other_contents
    if len(reported) < LISTED_AT_MOST or counted != len(raced):
        result.fault("ids visible twice that reconcile does not report", raced - reported)
    result.fault("ids that reconcile reports without a reason", reported - raced)
    return raced


def _firsts(group: Sequence[_TopicRecord]) -> set[str]:
    """The contents that may be visible: the first on each partition, without those of the aftermath."""
    early = [topic_record for topic_record in group if not topic_record.record.is_late] or group
    firsts: dict[tuple[str, int], tuple[int, str]] = {}
    for topic_record in early:
        topic_id, partition, offset = topic_record.coordinates
        content = (offset, topic_record.record.digest)
        firsts[topic_id, partition] = min(content, firsts.get((topic_id, partition), content))
    return {digest for _offset, digest in firsts.values()}


def _check_refused(
    result: CheckResult, evidence: Evidence, topic_records: Sequence[_TopicRecord], rows: Mapping[str, Sequence[Row]]
) -> None:
    """Each broken record is a dead letter with its own bytes, and each dead letter is a record that was sent."""
    lost, misclassified = [], []
    for topic_record in topic_records:
        fate = topic_record.record.fate
        if fate == "event":
            continue
        reason = evidence.dead_letters.get(topic_record.coordinates)
        if reason is None:
            if topic_record.is_required:
                lost.append(topic_record.coordinates)
        elif (reason == "expired") != (fate == "expired") or reason == "conflict":
            misclassified.append((topic_record.coordinates, reason))
    result.fault("broken records that are not among the dead letters", lost)
    result.fault("broken records with a wrong reason", misclassified)
    numbers = {topic_record.coordinates: topic_record.record.number for topic_record in topic_records}
    result.fault(
        "dead letters with the bytes of another record",
        (
            coordinates
            for coordinates, number in evidence.dead_letter_numbers.items()
            if numbers.get(coordinates) != number
        ),
    )
    refused = {topic_record.coordinates for topic_record in topic_records if topic_record.record.fate != "event"}
    result.fault(
        "broken records that are visible",
        (row for same_id in rows.values() for row in same_id if row.coordinates in refused),
    )


def _check_ledger(result: CheckResult, evidence: Evidence, topic_records: Sequence[_TopicRecord], races: int) -> None:
    """`verify` passes, and the sums of the ledger are those of the records that were sent."""
    result.fault(
        "faults found by verify",
        (
            f"{'' if ledger.is_current else 'earlier topic, '}partition {check.partition}: {problem}"
            for ledger in evidence.ledgers
            for check in ledger.partitions
            for problem in check.problems
        ),
    )
    checks = [check for ledger in evidence.ledgers for check in ledger.partitions]
    required = [topic_record for topic_record in topic_records if topic_record.is_required]
    coordinates = {topic_record.coordinates for topic_record in required}
    reasons = [reason for position, reason in evidence.dead_letters.items() if position in coordinates]
    result.conflicts = reasons.count("conflict")
    expected = {
        "read": len(required),
        "invalid": sum(1 for topic_record in required if topic_record.record.fate == "invalid"),
        "expired": sum(1 for topic_record in required if topic_record.record.fate == "expired"),
        "conflicts": result.conflicts,
    }
    sums = {name: sum(getattr(check, name) for check in checks) for name in expected}
    tolerance = {"conflicts": 4 * races}
    result.fault(
        "wrong sums of the ledger",
        (
            f"{name} {sums[name]:,} instead of {expected[name]:,}"
            for name in expected
            if abs(sums[name] - expected[name]) > tolerance.get(name, 0)
        ),
    )
    visible = len({row.coordinates for row in evidence.rows} & coordinates)
    result.duplicates = len(required) - visible - len(reasons)
    unstored = sum(check.stored + check.duplicates for check in checks)
    result.fault(
        "sums of the ledger that differ from the sent records",
        ()
        if abs(unstored - visible - result.duplicates) <= tolerance["conflicts"]
        else (f"stored + duplicates are {unstored:,}, visible + dropped {visible + result.duplicates:,}",),
    )
