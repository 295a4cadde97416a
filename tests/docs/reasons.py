"""What an operator does about each dead-letter reason: the part of the page that the code does not know."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One dead-letter reason.

    Attributes:
        remedy: What an operator does about it.
        cause: The cause, where the sink's `FAULTS` do not state it.
        counted: The column of the ledger that counts it.
    """

    remedy: str
    cause: str = ""
    counted: str = "invalid"


_EMITTER = "Correct the emitter. Repair the event with `dlq replay --edit FILE`, or drop it."
_CLOCK = "Correct the emitter's clock. Repair `occurred_at` with `dlq replay --edit FILE`, or drop it."

REASONS = {
    "wire_format": Reason(
        cause="the value does not start with the Confluent wire format: byte 0, then a 4-byte schema id",
        remedy="Find the producer that writes to this topic without the registry. Drop the record.",
    ),
    "unknown_schema": Reason(
        cause="the registry has no schema with the record's schema id",
        remedy="Register the schema, or point the sink at the right registry. Then replay.",
    ),
    "incompatible_schema": Reason(
        cause="the writer's schema lacks a field that an event needs, or declares another type for it; ClickHouse "
        "would convert the value without an error",
        remedy="Correct the schema in the registry. Then replay.",
    ),
    "undecodable": Reason(
        cause="the bytes do not match their schema: truncated, or garbage", remedy="Drop it; emit the event again."
    ),
    "trailing": Reason(remedy="Drop it; correct the encoder and emit the event again."),
    "text": Reason(remedy=_EMITTER),
    "id": Reason(remedy="Repair the id with `dlq replay --edit FILE`. `--new-id` makes a new one."),
    "action": Reason(remedy=_EMITTER),
    "actor": Reason(remedy=_EMITTER),
    "target": Reason(remedy=_EMITTER),
    "scope": Reason(remedy=_EMITTER),
    "request": Reason(remedy=_EMITTER),
    "version": Reason(remedy=_EMITTER),
    "payload": Reason(remedy=_EMITTER),
    "future": Reason(remedy=_CLOCK),
    "conflict": Reason(
        cause="an event with this id and other content is stored already; the error names its coordinates",
        counted="conflicts",
        remedy="Compare the two. An event of its own: `dlq replay --edit FILE --new-id`. A changed copy: drop it.",
    ),
    "expired": Reason(
        counted="expired", remedy="Drop it. The event is older than the retention and would be deleted at once."
    ),
    "refused": Reason(
        cause="ClickHouse refuses a record that decodes without an error",
        remedy="Read the error with `dlq show`. It names ClickHouse's reason.",
    ),
}
