"""The request of an export, its watermark, and the SQL that reads its events."""
