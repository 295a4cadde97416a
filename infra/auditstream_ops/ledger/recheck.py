"""A second look at a batch, while the topic still holds it: are its events there after all?

A batch may hold fewer visible rows than its books say, and yet nothing be lost: two sinks took the same id
from two partitions at once, and the table shows it once; or an event was almost as old as the retention when it
came. The records tell. The event contract begins a body with the id and the time, so no schema is needed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.external import ExternalData

from auditstream_ops.ledger.ledger_reader import Finding
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_schemas.errors import WireFormatError
from auditstream_storage import RETENTION_MONTHS, id_key

READ_AT_MOST = 1_000_000
"""Records that one run reads again, over all batches."""

_Place = tuple[UUID, int, int]

_ID_BYTES = 36
_LENGTH_BYTE = bytes([2 * _ID_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What the topic says of one ledger line.

    Attributes:
        is_whole: Whether the topic still holds all of the line's offsets.
        records: Records in them.
        lost: Ids of events that are neither visible, nor refused, nor older than the retention; a place
            where a record has no readable id.
        aged: Events that are not visible and are older than the retention by now.
        elsewhere: Offsets outside of the line, by partition, that the table has for its events.
    """

    is_whole: bool
    records: int
    lost: Sequence[str]
    aged: int
    elsewhere: Mapping[int, Collection[int]]


def recheck(
    client: Client,
    database: str,
    reader: TopicReader,
    topic_id: UUID,
    line: Finding,
    *,
    low: int,
    refused: Collection[tuple[int, int]],
) -> Recheck:
    """Read a line's records once more and look for their events. Blocks on broker and ClickHouse.

    Args:
        client: ClickHouse.
        database: A checked identifier.
        reader: The line's topic.
        topic_id: Its id.
        line: The line.
        low: First offset that the topic still holds.
        refused: Places, as partition and offset, that are among the dead letters.
    """
    records = 0
    lost: list[str] = []
    events: dict[UUID, int] = {}
    for message in reader.records(line.partition, line.first_offset, line.last_offset):
        records += 1
        place = (line.partition, message.offset() or 0)
        value = message.value()
        if place in refused:
            continue
        try:
            identity, occurred_at = id_and_time(value if isinstance(value, bytes) else b"")
        except WireFormatError:
            lost.append(f"offset {place[1]}")
        else:
            events[identity] = occurred_at
    stored = _stored(client, database, events)
    missing = set(events) - set(stored)
    oldest = _oldest_kept(client) if missing else 0
    aged = {identity for identity in missing if events[identity] < oldest}
    return Recheck(
        is_whole=low <= line.first_offset,
        records=records,
        lost=[*lost, *sorted(map(str, missing - aged))],
        aged=len(aged),
        elsewhere=_outside(line, topic_id, (place for places in stored.values() for place in places)),
    )


def id_and_time(message: bytes) -> tuple[UUID, int]:
    """The id and the time (nanoseconds since the epoch) at the front of a record of any writer schema.

    Raises:
        WireFormatError: It does not begin as the contract says.
    """
    body = message[5:]
    if message[:1] != b"\0" or body[:1] != _LENGTH_BYTE:
        raise WireFormatError("the record does not begin with an id")
    try:
        identity = UUID(body[1 : 1 + _ID_BYTES].decode("ascii"))
    except ValueError as error:
        raise WireFormatError("the record does not begin with an id") from error
    number = shift = 0
    for byte in body[1 + _ID_BYTES : 11 + _ID_BYTES]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return identity, number >> 1 ^ -(number & 1)
    raise WireFormatError("the record has no time")


def _oldest_kept(client: Client) -> int:
    rows = client.query(f"SELECT toUnixTimestamp64Nano(now64(9) - INTERVAL {RETENTION_MONTHS} MONTH)").result_rows
    return int(rows[0][0])


def _outside(line: Finding, topic_id: UUID, places: Iterable[_Place]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for its_topic, partition, offset in places:
        is_inside = partition == line.partition and line.first_offset <= offset <= line.last_offset
        if its_topic == topic_id and not is_inside:
            found.setdefault(partition, set()).add(offset)
    return found


def _stored(client: Client, database: str, ids: Iterable[UUID]) -> dict[UUID, Sequence[_Place]]:
    """Which of these ids are stored, and from where."""
    listed = "\n".join(map(str, ids))
    if not listed:
        return {}
    external = ExternalData(file_name="wanted", data=listed.encode(), fmt="TSV", structure="id UUID")
    rows = client.query(
        f"SELECT id, groupUniqArray((kafka_topic_id, kafka_partition, kafka_offset)) FROM {database}.event_log "
        f"WHERE id_key IN (SELECT {id_key('id')} FROM wanted) AND id IN (SELECT id FROM wanted) GROUP BY id",
        external_data=external,
    ).result_rows
    return {row[0]: row[1] for row in rows}
