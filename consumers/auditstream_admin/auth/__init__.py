"""Who is signed in, what they may see, and the audit events of what they do."""
