"""A stand-in for a schema registry."""
