"""Reads the records of a batch again while the topic has them, and looks for their events in the table.

Although nothing is lost, the table may have fewer visible rows than the ledger counts. Two sinks may have stored the
same id from two partitions at once: one row of it is visible. Or an event was almost as old as the retention on
arrival, and has been deleted since. A record's body begins with id and time, so no schema is needed to read them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.external import ExternalData

from auditstream_ops.clickhouse import clickhouse_errors
from auditstream_ops.ledger.ledger_reader import Finding
from auditstream_ops.ledger.topic_reader import TopicReader
from auditstream_schemas.errors import WireFormatError
from auditstream_storage import RETENTION_MONTHS, id_key

READ_AT_MOST = 1_000_000
"""Records that one run reads again, over all batches."""

_Coordinates = tuple[UUID, int, int]

_ID_BYTES = 36
_LENGTH_BYTE = bytes([2 * _ID_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """The records of one ledger line, as the topic and the table have them now.

    Attributes:
        is_whole: Whether the topic still has all of the line's offsets.
        records: Records in them.
        lost: Ids of events that are neither visible, nor refused, nor past the retention; of a record without a
            readable id its offset.
        aged: Events that are not visible, and are past the retention by now.
        elsewhere: Offsets outside of the line, by partition, from which the table has the line's events.
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
    """Read a line's records again and look for their events. Blocks on broker and ClickHouse.

    ``low`` is the first offset that the topic still has; ``refused`` are partition and offset of the dead letters.

    Raises:
        OperationError: The broker or ClickHouse fails.
    """
    records = 0
    lost: list[str] = []
    events: dict[UUID, int] = {}
    for message in reader.records(line.partition, line.first_offset, line.last_offset):
        records += 1
        offset = message.offset() or 0
        value = message.value()
        if (line.partition, offset) in refused:
            continue
        try:
            event_id, occurred_at = id_and_time(value if isinstance(value, bytes) else b"")
        except WireFormatError:
            lost.append(f"offset {offset}")
        else:
            events[event_id] = occurred_at
    with clickhouse_errors():
        stored = _stored(client, database, events)
        missing = set(events) - set(stored)
        oldest = _oldest_kept(client) if missing else 0
    aged = {event_id for event_id in missing if events[event_id] < oldest}
    elsewhere: dict[int, set[int]] = {}
    for stored_topic_id, partition, offset in (row for rows in stored.values() for row in rows):
        is_inside = partition == line.partition and line.first_offset <= offset <= line.last_offset
        if stored_topic_id == topic_id and not is_inside:
            elsewhere.setdefault(partition, set()).add(offset)
    return Recheck(
        is_whole=low <= line.first_offset,
        records=records,
        lost=[*lost, *sorted(map(str, missing - aged))],
        aged=len(aged),
        elsewhere=elsewhere,
    )


def id_and_time(message: bytes) -> tuple[UUID, int]:
    """The id and the time (nanoseconds since the epoch) at the front of a record of any writer schema.

    Raises:
        WireFormatError: The record does not begin with an id and a time.
    """
    body = message[5:]
    if message[:1] != b"\0" or body[:1] != _LENGTH_BYTE:
        raise WireFormatError("the record does not begin with an id")
    try:
        event_id = UUID(body[1 : 1 + _ID_BYTES].decode("ascii"))
    except ValueError as error:
        raise WireFormatError("the record does not begin with an id") from error
    number = shift = 0
    for byte in body[1 + _ID_BYTES : 11 + _ID_BYTES]:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return event_id, number >> 1 ^ -(number & 1)
    raise WireFormatError("the record has no time")


def _oldest_kept(client: Client) -> int:
    """The time of the oldest event that the retention keeps, nanoseconds since the epoch."""
    rows = client.query(f"SELECT toUnixTimestamp64Nano(now64(9) - INTERVAL {RETENTION_MONTHS} MONTH)").result_rows
    return int(rows[0][0])


def _stored(client: Client, database: str, ids: Iterable[UUID]) -> dict[UUID, Sequence[_Coordinates]]:
    """Those of these ids that the table has, with the coordinates of their rows."""
    text = "\n".join(map(str, ids))
    if not text:
        return {}
    external = ExternalData(file_name="checked", data=text.encode(), fmt="TSV", structure="id UUID")
    rows = client.query(
        f"SELECT id, groupUniqArray((kafka_topic_id, kafka_partition, kafka_offset)) FROM {database}.event_log "
        f"WHERE id_key IN (SELECT {id_key('id')} FROM checked) AND id IN (SELECT id FROM checked) GROUP BY id",
        external_data=external,
    ).result_rows
    return {row[0]: row[1] for row in rows}
