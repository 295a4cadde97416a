"""Reading events for the page and the API."""
