"""The errors that auditstream raises on purpose: all of them, as one tree.

::

    AuditstreamError
    ├── InvalidEventError                an event breaks the contract; lists every field at fault
    ├── WireFormatError                  bytes are not a record of the Confluent wire format
    ├── SettingsError                    a setting is missing or malformed
    ├── CatalogError                     the action is unlisted (strict mode), or the payload breaks its schema
    ├── RegistryError                    the schema registry refused
    │   ├── UnknownSchemaError           it has no such subject, version or schema
    │   └── RegistryUnavailableError     it cannot be reached: try again
    ├── QueueFullError                   the producer's local queue is full
    ├── UndeliveredError                 events that a producer had accepted were not delivered
    ├── SinkError                        the sink stops until an operator has fixed the cause
    ├── DataRefusedError                 auditstream_sink.clickhouse_writer: ClickHouse cannot read a record
    ├── UnknownOutcomeError              auditstream_sink.clickhouse_writer: outcome unknown: try again
    │   └── BrokerAwayError              auditstream_sink.assignment: the broker does not answer: try again
    ├── DeadLettersUndeliveredError      auditstream_sink.dead_letters: some are not at the broker: try again
    ├── BatchCancelledError              auditstream_sink.batch_writer: the current batch is no longer needed
    ├── TakenOverError                   auditstream_sink.batch_writer: another sink owns the partition
    ├── ExportError                      the export was not written
    │   ├── ExportSourceError            ClickHouse failed: try again
    │   └── ExportDeniedError            the requester may not have the export
    ├── JobInterruptedError              auditstream_export.jobs.job_run: the exporter leaves its job to another
    │   └── LeaseLostError               auditstream_export.jobs.job_run: another exporter has the job
    ├── AdminError                       a request to the page failed
    │   ├── FilterError                  a parameter of the URL is malformed; names it
    │   ├── DeniedError                  the viewer may not do this
    │   └── StoreUnavailableError        ClickHouse is unreachable or too slow: try again
    └── OperationError                   a command or the local stack failed
        └── AlreadyUpError               auditstream_local.supervision: a stack runs in this folder

An error whose line begins with a module is defined there and handled within its package. Each message says what was
wrong and how to fix it.
"""

from dataclasses import dataclass


class AuditstreamError(Exception):
    """Base of all errors of auditstream."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of an event that breaks the contract.

    Attributes:
        field: Path of the field, dots between its parts: ``actor.id``, ``metadata.region``.
        was: The value, shortened to 80 characters.
        expected: A description of right values.
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
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "invalid event: " + "; ".join(str(error) for error in self.errors)


class WireFormatError(AuditstreamError):
    """Bytes are not a record of the Confluent wire format, or not of its schema."""


class SettingsError(AuditstreamError):
    """A setting is missing or malformed."""


class CatalogError(AuditstreamError):
    """The action is not in the catalog (strict mode), or the payload breaks the action's schema."""


class RegistryError(AuditstreamError):
    """The schema registry refused a request."""


class UnknownSchemaError(RegistryError):
    """The registry has no such subject, version or schema."""


class RegistryUnavailableError(RegistryError):
    """The schema registry cannot be reached; the same call may succeed later."""


class QueueFullError(AuditstreamError):
    """The producer's local queue is full: the broker is unreachable or slower than the service."""


class UndeliveredError(AuditstreamError):
    """Events that were accepted did not reach the broker, and no ``on_error`` was called."""


class SinkError(AuditstreamError):
    """The sink stops until an operator has fixed the cause."""


class ExportError(AuditstreamError):
    """An export could not be written; there is no file with its final name."""


class ExportSourceError(ExportError):
    """ClickHouse could not be reached, failed, or sent an incomplete answer; the same call may succeed later."""


class ExportDeniedError(ExportError):
    """The requester may not have the export; the message is for the requester."""


class AdminError(AuditstreamError):
    """A request to the page failed: the page's settings are wrong, or the viewer may not see the answer."""


class FilterError(AdminError):
    """A parameter of the URL is malformed.

    Attributes:
        parameter: Its name.
        reason: The fault, and what is right.
    """

    def __init__(self, parameter: str, reason: str) -> None:
        super().__init__(parameter, reason)
        self.parameter = parameter
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.parameter}: {self.reason}"


class DeniedError(AdminError):
    """The viewer may not do this; the message is for the viewer."""


class StoreUnavailableError(AdminError):
    """ClickHouse is unreachable or took too long; the same request may succeed later."""


class OperationError(AuditstreamError):
    """A command or the local stack failed."""
