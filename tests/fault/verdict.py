"""Holds what was found against what was sent.

Which records the broker acknowledged is known from outside; in which order it took them, and what became of
those it never answered for, the topic itself tells. From these two follows what every reader must see.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from auditstream_ops.ledger.reconcile import LISTED_AT_MOST
from tests.fault.evidence import Evidence, Row
from tests.fault.load import LoadRecord

_SHOWN = 3


@dataclass(slots=True, kw_only=True)
class CheckResult:
    """Whether a schedule held, and its figures.

    Attributes:
        faults: What was wrong; empty when all is well.
        sent: Records handed to the emitter's client, second tries included.
        acked: Records acknowledged.
        on_topic: Records found on the topic, deleted ones included.
        visible: Rows that readers see.
        duplicates: Second deliveries dropped.
        conflicts: Dead letters of other content under a known id.
        letters: Dead letters, of all reasons.
        raw_minus_visible: Rows that wait for a merge.
        doubled: Ids that are visible twice after a race, as reconcile reports them.
        batches: Lines of the books.
        details: Examples of what was wrong, to be kept.
    """

    faults: list[str] = field(default_factory=list)
    sent: int = 0
    acked: int = 0
    on_topic: int = 0
    visible: int = 0
    duplicates: int = 0
    conflicts: int = 0
    letters: int = 0
    raw_minus_visible: int = 0
    doubled: int = 0
    batches: int = 0
    details: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, what: str, examples: Iterable[object]) -> None:
        """Note something wrong, if there is an example of it."""
        listed = [str(example) for example in examples]
        if listed:
            shown = ", ".join(listed[:_SHOWN])
            self.faults.append(f"{len(listed)} {what}: {shown}{' ...' if len(listed) > _SHOWN else ''}")
            self.details[what] = listed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A record on a topic.

    Attributes:
        record: What was sent.
        place: Topic id, partition, offset.
        is_owed: Whether a sink has to account for it; not if its topic was deleted before one had.
    """

    record: LoadRecord
    place: tuple[str, int, int]
    is_owed: bool


def judge(evidence: Evidence, records: Sequence[LoadRecord], sent: int) -> CheckResult:
    """Compare everything."""
    verdict = CheckResult(
        sent=sent,
        acked=sum(1 for record in records if record.acked),
        visible=len(evidence.rows),
        letters=len(evidence.letters),
        raw_minus_visible=evidence.raw - len(evidence.rows),
        doubled=evidence.findings.other_keys + evidence.findings.other_contents,
        batches=sum(account.batches for books in evidence.books for account in books.partitions),
    )
    found = list(_on_topics(evidence, records))
    verdict.on_topic = len(found)
    _check_broker(verdict, evidence, records, found)
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        rows[row.identity].append(row)
    of_id: dict[str, list[_Found]] = defaultdict(list)
    for each in found:
        if each.record.fate == "event":
            of_id[each.record.identity].append(each)
    _check_ids(verdict, rows, of_id)
    doubled = _check_contents(verdict, evidence, rows, of_id)
    _check_refused(verdict, evidence, found, rows)
    _check_books(verdict, evidence, found, len(doubled))
    return verdict


def _on_topics(evidence: Evidence, records: Sequence[LoadRecord]) -> Iterable[_Found]:
    ends = {
        (str(books.topic_id), account.partition): account.last_offset
        for books in evidence.books
        for account in books.partitions
    }
    for topic_id, places in evidence.topics.items():
        for partition, offset, number in places:
            yield _Found(
                record=records[number],
                place=(topic_id, partition, offset),
                is_owed=topic_id == evidence.topic_id or offset <= ends.get((topic_id, partition), -1),
            )


def _check_broker(
    verdict: CheckResult, evidence: Evidence, records: Sequence[LoadRecord], found: Sequence[_Found]
) -> None:
    """What the broker acknowledged must be where it said: else the sink is not to blame."""
    topic_ids = list(evidence.topics)
    there = {(each.place, each.record.number) for each in found}
    verdict.fault(
        "records that the broker acknowledged and lost",
        (
            f"{(incarnation, partition, offset)}"
            for record in records
            for incarnation, partition, offset in record.acked
            if ((topic_ids[incarnation], partition, offset), record.number) not in there
        ),
    )
    verdict.fault("records without an acknowledgement", (record.number for record in records if not record.acked))


def _check_ids(verdict: CheckResult, rows: Mapping[str, Sequence[Row]], of_id: Mapping[str, Sequence[_Found]]) -> None:
    """Acknowledged ids minus visible ids is empty; and nothing else is visible."""
    owed = {identity for identity, group in of_id.items() if any(each.is_owed for each in group)}
    verdict.fault("acknowledged ids that nobody sees", sorted(owed - rows.keys()))
    verdict.fault("visible ids that nobody sent", sorted(rows.keys() - of_id.keys()))


def _check_contents(
    verdict: CheckResult, evidence: Evidence, rows: Mapping[str, Sequence[Row]], of_id: Mapping[str, Sequence[_Found]]
) -> set[str]:
    """Each id is visible once, with the content that came first; other content is a letter. Returns the races."""
    twice, wrong, unkept, needless, elsewhere = [], [], [], [], []
    raced = set()
    for identity, group in of_id.items():
        seen = {row.digest for row in rows.get(identity, ())}
        places = {each.place: each.record.digest for each in group}
        firsts = _firsts(group)
        if len(rows.get(identity, ())) != len(seen) or len(seen) > max(1, len(firsts)):
            twice.append(identity)
        if len(seen) > 1:
            raced.add(identity)
        if not seen <= firsts:
            wrong.append(identity)
        elsewhere += [row for row in rows.get(identity, ()) if places.get(row.place) != row.digest]
        for each in group:
            reason = evidence.letters.get(each.place)
            if reason is None:
                if each.is_owed and each.record.digest not in seen:
                    unkept.append(each.place)
            elif reason != "conflict" or (each.record.digest in seen and len(seen) == 1):
                needless.append((each.place, reason))
    verdict.fault("ids visible twice", twice)
    verdict.fault("ids with another content than the first", wrong)
    verdict.fault("rows that say they come from where they do not", elsewhere)
    verdict.fault("conflicts that are not among the dead letters", unkept)
    verdict.fault("sound events among the dead letters", needless)
    reported = {str(each.id) for each in evidence.findings.repeated}
    # It lists a hundred, and counts the others.
    counted = evidence.findings.other_keys + evidence.findings.other_contents
    if len(reported) < LISTED_AT_MOST or counted != len(raced):
        verdict.fault("ids visible twice that reconcile does not report", raced - reported)
    verdict.fault("ids that reconcile reports without a reason", reported - raced)
    return raced


def _firsts(group: Sequence[_Found]) -> set[str]:
    """The contents that may be visible: the first on each partition, of those sent before all was settled."""
    early = [each for each in group if not each.record.is_late] or group
    firsts: dict[tuple[str, int], tuple[int, str]] = {}
    for each in early:
        topic_id, partition, offset = each.place
        mine = (offset, each.record.digest)
        firsts[topic_id, partition] = min(mine, firsts.get((topic_id, partition), mine))
    return {digest for _offset, digest in firsts.values()}


def _check_refused(
    verdict: CheckResult, evidence: Evidence, found: Sequence[_Found], rows: Mapping[str, Sequence[Row]]
) -> None:
    """Each broken record is a dead letter, with its own bytes; and each dead letter is a record that was sent."""
    lost, misjudged = [], []
    for each in found:
        fate = each.record.fate
        if fate == "event":
            continue
        reason = evidence.letters.get(each.place)
        if reason is None:
            if each.is_owed:
                lost.append(each.place)
        elif (reason == "expired") != (fate == "expired") or reason == "conflict":
            misjudged.append((each.place, reason))
    verdict.fault("broken records that are not among the dead letters", lost)
    verdict.fault("broken records with a wrong reason", misjudged)
    numbers = {each.place: each.record.number for each in found}
    verdict.fault(
        "dead letters that hold another record",
        (place for place, number in evidence.letter_numbers.items() if numbers.get(place) != number),
    )
    refused = {each.place for each in found if each.record.fate != "event"}
    verdict.fault(
        "broken records that are visible", (row for of in rows.values() for row in of if row.place in refused)
    )


def _check_books(verdict: CheckResult, evidence: Evidence, found: Sequence[_Found], races: int) -> None:
    """`verify` passes, and its sums are what was sent."""
    verdict.fault(
        "faults found by verify",
        (
            f"{'' if books.is_current else 'earlier topic, '}partition {account.partition}: {problem}"
            for books in evidence.books
            for account in books.partitions
            for problem in account.problems
        ),
    )
    accounts = [account for books in evidence.books for account in books.partitions]
    owed = [each for each in found if each.is_owed]
    places = {each.place for each in owed}
    letters = {place: reason for place, reason in evidence.letters.items() if place in places}
    verdict.conflicts = sum(1 for reason in letters.values() if reason == "conflict")
    expected = {
        "read": len(owed),
        "invalid": sum(1 for each in owed if each.record.fate == "invalid"),
        "expired": sum(1 for each in owed if each.record.fate == "expired"),
        "conflicts": verdict.conflicts,
    }
    sums = {name: sum(getattr(account, name) for account in accounts) for name in expected}
    tolerance = {"conflicts": 4 * races}
    verdict.fault(
        "sums of the books that are wrong",
        (
            f"{name} {sums[name]:,} instead of {expected[name]:,}"
            for name in expected
            if abs(sums[name] - expected[name]) > tolerance.get(name, 0)
        ),
    )
    visible = len({row.place for row in evidence.rows} & places)
    verdict.duplicates = len(owed) - visible - len(letters)
    unstored = sum(account.stored + account.duplicates for account in accounts)
    verdict.fault(
        "sums that do not account for everything sent",
        ()
        if abs(unstored - visible - verdict.duplicates) <= tolerance["conflicts"]
        else (f"stored + duplicates are {unstored:,}, visible + dropped {visible + verdict.duplicates:,}",),
    )
