"""The catalog of known actions."""

from auditstream_schemas.catalog.entries import CatalogEntry, catalog, validate_payload

__all__ = ["CatalogEntry", "catalog", "validate_payload"]
