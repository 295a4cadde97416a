"""The records of a tenant's topic, and Python scripts that run against the tenant."""

import os
import subprocess
import sys
from pathlib import Path

from confluent_kafka import Consumer, Message, TopicPartition

from auditstream_schemas.codec import decode
from auditstream_schemas.event import AuditEvent
from tests.support.fix_stack import Tenant

WAIT = 60
PARTITIONS = 3


def read_topic(tenant: Tenant, expected: int) -> list[Message]:
    """All records of the tenant's topic: waits for ``expected`` of them, and one second for more."""
    consumer = Consumer(
        {
            "bootstrap.servers": tenant.endpoints.bootstrap_servers,
            "group.id": tenant.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        consumer.assign([TopicPartition(tenant.topic, partition, 0) for partition in range(PARTITIONS)])
        messages = consumer.consume(expected, timeout=WAIT) + consumer.consume(1000, timeout=1)
    finally:
        consumer.close()
    assert {message.error() for message in messages} <= {None}
    return messages


def read_events(tenant: Tenant, expected: int) -> list[AuditEvent]:
    """The events of the tenant's topic, sorted by id."""
    events = (decode(message.value() or b"") for message in read_topic(tenant, expected))
    return sorted(events, key=lambda event: event.id)


def run_python(tenant: Tenant, *arguments: str, cwd: Path | None = None) -> str:
    """Run Python with the tenant's environment, and return its standard output."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", *arguments],
        env={**os.environ, **tenant.env},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=3 * WAIT,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout
