"""Deploy steps: migrations, topics and the schema."""
