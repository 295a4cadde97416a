"""Reading events from ClickHouse for the page and the API."""
