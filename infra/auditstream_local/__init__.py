"""The local stack: a broker, a schema registry and ClickHouse on loopback ports, for development and tests."""

from auditstream_local.endpoints import Endpoints, ServerStatus
from auditstream_local.server import port_is_free
from auditstream_local.stack import LocalStack, Ports
from auditstream_local.supervision import (
    AlreadyUpError,
    RunningStack,
    last_error,
    running,
    start_detached,
    stop_running,
    supervise,
    wait_until_ready,
)

__all__ = [
    "AlreadyUpError",
    "Endpoints",
    "LocalStack",
    "Ports",
    "RunningStack",
    "ServerStatus",
    "last_error",
    "port_is_free",
    "running",
    "start_detached",
    "stop_running",
    "supervise",
    "wait_until_ready",
]
