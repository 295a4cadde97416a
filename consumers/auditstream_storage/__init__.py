"""Shared by sink, export and page: the connection to ClickHouse, ledger, retention, event filter, audit trail."""

from auditstream_storage.audit_trail import AuditTrail, Emit
from auditstream_storage.clickhouse_errors import FAILURES, ErrorKind, classify_error, error_text, failing_as
from auditstream_storage.connection import Connection, connect
from auditstream_storage.event_filter import TIME_RANGE, EventConditions, id_key, words
from auditstream_storage.ledger import COUNTS, LedgerCounts, LedgerEnd, LedgerLine, LedgerTotals, adds_up, checked_lines
from auditstream_storage.retention import RETENTION_MONTHS

__all__ = [
    "COUNTS",
    "FAILURES",
    "RETENTION_MONTHS",
    "TIME_RANGE",
    "AuditTrail",
    "Connection",
    "Emit",
    "ErrorKind",
    "EventConditions",
    "LedgerCounts",
    "LedgerEnd",
    "LedgerLine",
    "LedgerTotals",
    "adds_up",
    "checked_lines",
    "classify_error",
    "connect",
    "error_text",
    "failing_as",
    "id_key",
    "words",
]
