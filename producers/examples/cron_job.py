"""Deletes unused schedules, with one audit event each. Safe to run again after a crash.

It ends with exit code 1 if an event was not delivered, so that cron reports it.
"""

import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from auditstream_producer import AuditProducer
from auditstream_schemas import UndeliveredError

# The namespace of this job's event ids, made once with uuid4().
NAMESPACE = UUID("5d2f6f0e-6f0c-4d7e-9a55-0c9f1f2b7a11")


@dataclass(frozen=True)
class Schedule:
    """A schedule, with the fields of the payload of schedule.delete."""

    name: str
    runs: int
    last_run_at: str


def due_schedules() -> dict[str, Schedule]:
    """The schedules, by the time at which each became due for deletion. A real job would read its database."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        f"{midnight - timedelta(days=days):%Y-%m-%dT03:00:00Z}": Schedule(name, runs, "2025-11-02T03:00:00Z")
        for days, name, runs in ((1, "nightly", 12), (2, "weekly", 3))
    }


def main() -> None:
    """Delete the schedules and emit the events."""
    with AuditProducer.from_env() as producer:
        for due_at, schedule in due_schedules().items():
            # A second run makes the same event: same id, same time, same content. The sink drops it as a second
            # delivery. With a new id it would be a second event; with another time it would be a conflict.
            producer.emit(
                id=uuid5(NAMESPACE, schedule.name),
                occurred_at=due_at,
                action="schedule.delete",
                actor={"id": "schedule-cleanup", "type": "cron_job"},
                target={"id": schedule.name, "type": "schedule", "name": schedule.name},
                payload=asdict(schedule),
            )
            # The deletion itself would be here.


if __name__ == "__main__":
    try:
        main()
    except UndeliveredError as error:
        sys.exit(str(error))
