"""Emits one audit event and waits until the broker has it.

Run it with the AUDITSTREAM_* variables of your stack: python producers/examples/plain_script.py
"""

from auditstream_producer import AuditProducer


def main() -> None:
    """Emit one event."""
    # The end of the block waits for the broker, and raises UndeliveredError if it does not acknowledge the event.
    with AuditProducer.from_env() as producer:
        event_id = producer.emit(
            action="context.create",
            actor={"id": "u-17", "type": "user", "name": "Ada"},
            target={"id": "c-4", "type": "context", "name": "deploy"},
            scope={"id": "acme", "type": "organization"},
            payload={"name": "deploy", "group_ids": []},
            request={"id": "req-9f3"},
        )
    print(f"emitted {event_id}")


if __name__ == "__main__":
    main()
