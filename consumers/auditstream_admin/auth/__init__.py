"""Authentication, roles, rate limits, and the audit events about the page itself."""
