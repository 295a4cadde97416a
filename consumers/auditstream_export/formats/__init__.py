"""Output formats: CSV, NDJSON and Parquet."""
