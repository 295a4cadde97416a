"""The audit event and what its writers and readers share.

The wire codec, the registry client, the catalog and the settings are imported from their own modules, so
that a service pays for what it uses.
"""

from auditstream_schemas.errors import (
    AdminError,
    AuditstreamError,
    CatalogError,
    DeniedError,
    ExportDeniedError,
    ExportError,
    ExportSourceError,
    FieldError,
    FilterError,
    InvalidEventError,
    OperationError,
    QueueFullError,
    RegistryError,
    RegistryUnavailableError,
    SettingsError,
    SinkError,
    StoreUnavailableError,
    UndeliveredError,
    UnknownSchemaError,
    WireFormatError,
)
from auditstream_schemas.event import FIELDS, AuditEvent, Entity, Request
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp

__all__ = [
    "FIELDS",
    "AdminError",
    "AuditEvent",
    "AuditstreamError",
    "CatalogError",
    "DeniedError",
    "Entity",
    "ExportDeniedError",
    "ExportError",
    "ExportSourceError",
    "FieldError",
    "FilterError",
    "InvalidEventError",
    "OperationError",
    "QueueFullError",
    "RegistryError",
    "RegistryUnavailableError",
    "Request",
    "SettingsError",
    "SinkError",
    "StoreUnavailableError",
    "UndeliveredError",
    "UnknownSchemaError",
    "WireFormatError",
    "format_timestamp",
    "parse_timestamp",
]
