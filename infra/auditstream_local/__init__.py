"""The local stack: a broker, a schema registry and ClickHouse on loopback ports, for development and tests."""
