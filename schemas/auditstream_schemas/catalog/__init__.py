"""The catalog of known actions."""

from auditstream_schemas.catalog.entries import CatalogEntry, catalog, catalog_sha256, validate_payload

__all__ = ["CatalogEntry", "catalog", "catalog_sha256", "validate_payload"]
