"""What sink, export and page share about ClickHouse: connection, ledger, retention, event filter, audit trail."""

from auditstream_storage.ledger import LedgerEnd, LedgerLine, Totals

__all__ = ["LedgerEnd", "LedgerLine", "Totals"]
