"""Every error that auditstream raises on purpose.

::

    AuditstreamError
    ├── InvalidEventError        an event breaks the contract; lists every field at fault
    ├── WireFormatError          bytes are not a record of the Confluent wire format
    ├── SettingsError            a setting is missing or malformed
    ├── CatalogError             the action is unlisted (strict mode) or the payload breaks its schema
    ├── RegistryError            the schema registry refused
    │   ├── UnknownSchemaError           it has no such subject, version or schema
    │   └── RegistryUnavailableError     it could not be reached: try again
    ├── QueueFullError           the producer's local queue is full
    ├── UndeliveredError         events that a producer had accepted were not delivered
    ├── SinkError                the sink cannot go on
    ├── ExportError              the export was not written
    │   ├── ExportSourceError            ClickHouse failed it: try again
    │   └── ExportDeniedError            it may not be asked for
    ├── AdminError               the admins' page cannot serve this
    │   ├── FilterError                  a parameter of the URL makes no sense; names it
    │   ├── DeniedError                  this viewer may not do this
    │   └── StoreUnavailableError        ClickHouse cannot be asked: try again
    └── OperationError           a deploy or local-stack step failed

Each message says what was wrong and what to do about it.
"""

from dataclasses import dataclass


class AuditstreamError(Exception):
    """Base of all errors of auditstream."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of an event that breaks the contract.

    Attributes:
        field: Path of the field, dots between its parts: ``actor.id``, ``metadata.region``.
        was: What was found, shortened to 80 characters.
        expected: What is right.
    """

    field: str
    was: str
    expected: str

    def __str__(self) -> str:
        return f"{self.field}: was {self.was}, expected {self.expected}"


class InvalidEventError(AuditstreamError):
    """An event breaks the contract.

    Attributes:
        errors: Every field at fault, in the order of the event's fields.
    """

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("invalid event: " + "; ".join(str(error) for error in errors))
        self.errors = errors

    def __reduce__(self) -> tuple[type["InvalidEventError"], tuple[tuple[FieldError, ...]]]:
        # Exceptions are pickled by their message otherwise.
        return type(self), (self.errors,)


class WireFormatError(AuditstreamError):
    """Bytes are not a record of the Confluent wire format, or not of its schema."""


class SettingsError(AuditstreamError):
    """A setting is missing or malformed."""


class CatalogError(AuditstreamError):
    """The action is not in the catalog (strict mode), or the payload breaks the action's schema."""


class RegistryError(AuditstreamError):
    """The schema registry refused a request."""


class UnknownSchemaError(RegistryError):
    """The registry answered, and has no such subject, version or schema."""


class RegistryUnavailableError(RegistryError):
    """The schema registry could not be reached; the same call may succeed later."""


class QueueFullError(AuditstreamError):
    """The producer's local queue is full: the broker is away or slower than the service."""


class UndeliveredError(AuditstreamError):
    """Events that were accepted did not reach the broker, and no ``on_error`` was told."""


class SinkError(AuditstreamError):
    """The sink cannot go on without a person."""


class ExportError(AuditstreamError):
    """An export could not be written; nothing lies under its final name."""


class ExportSourceError(ExportError):
    """ClickHouse could not be reached, failed, or sent less than it has; the same call may succeed later."""


class ExportDeniedError(ExportError):
    """An export may not be asked for; the message is for whoever asked."""


class AdminError(AuditstreamError):
    """The admins' page cannot be served as it is set up, or not to this viewer."""


class FilterError(AdminError):
    """A parameter of the URL makes no sense.

    Attributes:
        parameter: Its name.
        reason: What is wrong with it and what is right.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(f"{parameter}: {reason}")
        self.parameter = parameter
        self.reason = reason

    def __reduce__(self) -> tuple[type["FilterError"], tuple[str, str]]:
        # Exceptions are pickled by their message otherwise.
        return type(self), (self.parameter, self.reason)


class DeniedError(AdminError):
    """Somebody may not do what they asked for; the message is for them to read."""


class StoreUnavailableError(AdminError):
    """ClickHouse cannot be asked, or took too long; the same request may succeed later."""


class OperationError(AuditstreamError):
    """A deploy step or the local stack failed."""
