"""Checking the ledger against the event log and the topic."""
