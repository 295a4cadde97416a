"""What sink, export and page share about ClickHouse: connection, ledger, retention, event filter, audit trail."""
