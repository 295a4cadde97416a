"""The audit event, its errors and its timestamps.

The wire codec, the registry client, the catalog and the settings are imported from their own modules. A
service then loads only the modules that it uses.
"""

from auditstream_schemas.entity import Entity, Request
from auditstream_schemas.errors import (
    AuditstreamError,
    CatalogError,
    FieldError,
    InvalidEventError,
    QueueFullError,
    RegistryError,
    SettingsError,
    UndeliveredError,
    WireFormatError,
)
from auditstream_schemas.event import FIELDS, AuditEvent
from auditstream_schemas.timestamp import format_timestamp, parse_timestamp

__all__ = [
    "FIELDS",
    "AuditEvent",
    "AuditstreamError",
    "CatalogError",
    "Entity",
    "FieldError",
    "InvalidEventError",
    "QueueFullError",
    "RegistryError",
    "Request",
    "SettingsError",
    "UndeliveredError",
    "WireFormatError",
    "format_timestamp",
    "parse_timestamp",
]
