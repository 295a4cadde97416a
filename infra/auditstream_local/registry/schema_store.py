"""The subjects, versions and schemas of the registry stand-in, in one file that survives a SIGKILL."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from auditstream_local.registry.compatibility import LEVELS, MalformedSchemaError, canonical, incompatibilities
from auditstream_schemas.errors import OperationError

GLOBAL_LEVEL = "BACKWARD"
_FILE_NAME = "registry.json"


class RefusalError(Exception):
    """An error of the Confluent REST API.

    Attributes:
        code: The API's error code; its first three digits are the HTTP status.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a subject.

    Attributes:
        version: Number within the subject, from 1.
        schema_id: Number of the schema, the same under every subject.
        deleted: Whether it is soft-deleted: hidden, but its schema can still be read by id.
    """

    version: int
    schema_id: int
    deleted: bool = False


@dataclass(slots=True)
class _Contents:
    schemas: dict[int, str] = field(default_factory=dict)
    subjects: dict[str, list[Version]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    global_level: str = GLOBAL_LEVEL


class SchemaStore:
    """Schemas, subjects and levels. Not thread-safe. Every change is on disk when its method returns."""

    def __init__(self, data_dir: Path) -> None:
        """Read the file, if it exists.

        Args:
            data_dir: Directory of the file; made if missing.

        Raises:
            OperationError: The file exists and cannot be read.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        self._path = data_dir / _FILE_NAME
        self._contents = _read(self._path)
        self._ids = {canonical(text): number for number, text in self._contents.schemas.items()}

    def subjects(self) -> list[str]:
        """Names of the subjects that have a version."""
        return sorted(name for name in self._contents.subjects if self._live(name))

    def versions(self, subject: str) -> list[Version]:
        """Versions of a subject, oldest first.

        Raises:
            RefusalError: 40401, unknown subject.
        """
        live = self._live(subject)
        if not live:
            raise RefusalError(40401, f"Subject '{subject}' not found.")
        return live

    def version(self, subject: str, number: str) -> Version:
        """One version of a subject, by number or ``latest``.

        Raises:
            RefusalError: 40401, unknown subject; 40402, unknown version; 42202, not a version.
        """
        live = self.versions(subject)
        if number in {"latest", "-1"}:
            return live[-1]
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            raise RefusalError(42202, f"The specified version '{number}' is not a valid version id.")
        for version in live:
            if version.version == int(number):
                return version
        raise RefusalError(40402, f"Version {number} not found.")

    def schema(self, schema_id: int) -> str:
        """The schema with an id, in its first registered spelling.

        Raises:
            RefusalError: 40403, unknown id.
        """
        try:
            return self._contents.schemas[schema_id]
        except KeyError:
            raise RefusalError(40403, f"Schema {schema_id} not found") from None

    def uses(self, schema_id: int) -> Iterator[tuple[str, int]]:
        """Subject and version of every use of a schema.

        Raises:
            RefusalError: 40403, unknown id.
        """
        self.schema(schema_id)
        for subject in self.subjects():
            for version in self._live(subject):
                if version.schema_id == schema_id:
                    yield subject, version.version

    def look_up(self, subject: str, schema_json: str) -> Version:
        """The version of a subject with this schema.

        Raises:
            RefusalError: 40401, unknown subject; 40403, not a schema of the subject; 42201, malformed.
        """
        live = self.versions(subject)
        schema_id = self._ids.get(_canonical(schema_json))
        for version in live:
            if version.schema_id == schema_id:
                return version
        raise RefusalError(40403, "Schema not found")

    def register(self, subject: str, schema_json: str) -> Version:
        """Add a schema to a subject; return the existing version if the subject has it already.

        Raises:
            RefusalError: 409, incompatible; 42201, malformed.
        """
        text = _canonical(schema_json)
        for version in self._live(subject):
            if version.schema_id == self._ids.get(text):
                return version
        reasons = self.incompatibilities(subject, schema_json, self._live(subject))
        if reasons:
            raise RefusalError(
                409,
                "Schema being registered is incompatible with an earlier schema for subject "
                f"'{subject}', details: {reasons}; compatibility: '{self.level(subject)}'",
            )
        contents = self._contents
        schema_id = self._ids.get(text, len(contents.schemas) + 1)
        known = contents.subjects.setdefault(subject, [])
        added = Version(version=known[-1].version + 1 if known else 1, schema_id=schema_id)
        known.append(added)
        contents.schemas.setdefault(schema_id, schema_json)
        self._ids[text] = schema_id
        self._write()
        return added

    def incompatibilities(self, subject: str, schema_json: str, earlier: list[Version]) -> list[str]:
        """The reasons why a schema is incompatible with these versions, at the subject's level.

        Raises:
            RefusalError: 42201, malformed.
        """
        texts = [self._contents.schemas[version.schema_id] for version in earlier]
        try:
            return incompatibilities(schema_json, texts, self.level(subject))
        except MalformedSchemaError as error:
            raise RefusalError(42201, f"Invalid schema: {error}") from error

    def delete(self, subject: str, *, permanent: bool) -> list[int]:
        """Soft-delete a subject's versions, or remove soft-deleted ones for good; return their numbers.

        Raises:
            RefusalError: 40401, unknown subject; 40404, soft-deleted already; 40405, not soft-deleted yet.
        """
        known = self._contents.subjects.get(subject)
        if known is None:
            raise RefusalError(40401, f"Subject '{subject}' not found.")
        live = self._live(subject)
        if permanent and live:
            raise RefusalError(40405, f"Subject '{subject}' was not deleted first before being permanently deleted")
        if not permanent and not live:
            raise RefusalError(40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")
        if permanent:
            removed = known
            del self._contents.subjects[subject]
        else:
            removed = live
            self._contents.subjects[subject] = [replace(version, deleted=True) for version in known]
        self._contents.levels.pop(subject, None)
        self._write()
        return [version.version for version in removed]

    def level(self, subject: str | None = None) -> str:
        """Compatibility level of a subject, or the global one."""
        if subject is None:
            return self._contents.global_level
        return self._contents.levels.get(subject, self._contents.global_level)

    def own_level(self, subject: str) -> str:
        """Compatibility level that was set for a subject.

        Raises:
            RefusalError: 40408, the subject has no level of its own.
        """
        try:
            return self._contents.levels[subject]
        except KeyError:
            raise RefusalError(
                40408, f"Subject '{subject}' does not have subject-level compatibility configured"
            ) from None

    def set_level(self, level: str, subject: str | None = None) -> None:
        """Set the compatibility level of a subject, or the global one.

        Raises:
            RefusalError: 42203, not a level.
        """
        if level not in LEVELS:
            raise RefusalError(42203, f"Invalid compatibility level. Valid values are {', '.join(LEVELS)}")
        if subject is None:
            self._contents.global_level = level
        else:
            self._contents.levels[subject] = level
        self._write()

    def _live(self, subject: str) -> list[Version]:
        return [version for version in self._contents.subjects.get(subject, ()) if not version.deleted]

    def _write(self) -> None:
        partial = self._path.with_suffix(".part")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(asdict(self._contents), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)


def _canonical(schema_json: str) -> str:
    try:
        return canonical(schema_json)
    except MalformedSchemaError as error:
        raise RefusalError(42201, f"Invalid schema: {error}") from error


def _read(path: Path) -> _Contents:
    try:
        contents = json.loads(path.read_text("utf-8"))
        return _Contents(
            schemas={int(number): text for number, text in contents["schemas"].items()},
            subjects={
                name: [Version(**version) for version in versions] for name, versions in contents["subjects"].items()
            },
            levels=contents["levels"],
            global_level=contents["global_level"],
        )
    except FileNotFoundError:
        return _Contents()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OperationError(f"cannot read the schemas in {path}: {error}; move the file away") from error
