"""Client of a schema registry with the Confluent REST API.

Services look schemas up. Only the deploy step registers them.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import urllib3
from urllib3.util import Retry, Timeout, parse_url

from auditstream_schemas.errors import RegistryError, RegistryUnavailableError, SettingsError, UnknownSchemaError
from auditstream_schemas.tls import checked_ca_file, tls_fault

UNKNOWN_SUBJECT = 40401
UNKNOWN_VERSION = 40402
UNKNOWN_SCHEMA = 40403

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_SHOWN_CHARACTERS = 300
_CA_VARIABLE = "AUDITSTREAM_SCHEMA_REGISTRY_CA_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSchema:
    """One version of a subject.

    Attributes:
        subject: Name of the subject, ``<topic>-value`` for events.
        version: Number within the subject, from 1.
        schema_id: Number that stands in the records, unique in the registry.
        schema: The schema as JSON text.
    """

    subject: str
    version: int
    schema_id: int
    schema: str


class RegistryClient:
    """A client of the registry over HTTP or HTTPS. Safe to share between threads.

    Every call blocks until it is answered: ``timeout`` seconds a try at most, and ``retries`` more tries with growing
    pauses when the registry cannot be reached or answers 5xx or 429. Every call can be repeated without harm.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None, timeout: float = 5.0, retries: int = 3) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            url: ``http://`` or ``https://`` and host, ``user:password@`` before the host if needed. The
                user's name and password never appear in messages.
            ca_file: Certificate of the CA that signed the registry's; None for the system's CAs.
            timeout: Seconds that one try may take.
            retries: Tries after the first; 0 for a caller that tries again itself.

        Raises:
            SettingsError: The URL is malformed, or the CA file cannot be used.
        """
        try:
            parsed = parse_url(url)
        except urllib3.exceptions.LocationParseError as error:
            raise SettingsError(_bad_url()) from error
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise SettingsError(_bad_url())
        self.url = parsed._replace(auth=None, query=None, fragment=None).url.rstrip("/")
        headers = {"accept": f"{_MEDIA_TYPE}, application/json", "content-type": _MEDIA_TYPE}
        if parsed.auth:
            credentials = base64.b64encode(unquote(parsed.auth).encode()).decode()
            headers["authorization"] = f"Basic {credentials}"
        self._pool = urllib3.PoolManager(
            headers=headers,
            cert_reqs="CERT_REQUIRED",
            ca_certs=checked_ca_file(ca_file, _CA_VARIABLE),
            timeout=Timeout(total=timeout),
            retries=Retry(
                total=retries,
                backoff_factor=0.2,
                allowed_methods=None,
                status_forcelist=(429, 500, 502, 503, 504),
                raise_on_status=False,
                respect_retry_after_header=False,
            ),
        )

    def __repr__(self) -> str:
        return f"RegistryClient({self.url!r})"

    def schema_id(self, subject: str, schema_json: str) -> int:
        """Return the id of exactly this schema within the subject; registers nothing.

        Raises:
            UnknownSchemaError: The subject, or this schema of it, is not registered.
            RegistryError: The registry refused.
            RegistryUnavailableError: It could not be reached.
        """
        answer = self._call("POST", f"/subjects/{_part(subject)}", f"schema of {subject}", {"schema": schema_json})
        return _integer(answer, "id", self.url)

    def schema(self, schema_id: int) -> str:
        """Return the schema with this id, as JSON text.

        Raises:
            UnknownSchemaError: No schema has this id.
            RegistryError: The registry refused.
            RegistryUnavailableError: It could not be reached.
        """
        answer = self._call("GET", f"/schemas/ids/{schema_id}", f"schema {schema_id}")
        return _text(answer, "schema", self.url)

    def latest(self, subject: str) -> RegisteredSchema:
        """Return the newest version of a subject.

        Raises:
            UnknownSchemaError: The subject is not registered.
            RegistryError: The registry refused.
            RegistryUnavailableError: It could not be reached.
        """
        answer = self._call("GET", f"/subjects/{_part(subject)}/versions/latest", f"subject {subject}")
        return RegisteredSchema(
            subject=subject,
            version=_integer(answer, "version", self.url),
            schema_id=_integer(answer, "id", self.url),
            schema=_text(answer, "schema", self.url),
        )

    def register(self, subject: str, schema_json: str) -> int:
        """Add a schema to a subject if the subject lacks it, and return its id.

        Raises:
            RegistryError: The registry refused: the schema is malformed, or incompatible with the versions
                that the subject has.
            RegistryUnavailableError: It could not be reached.
        """
        answer = self._call(
            "POST", f"/subjects/{_part(subject)}/versions", f"schema for {subject}", {"schema": schema_json}
        )
        return _integer(answer, "id", self.url)

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set which changes of a subject's schema the registry accepts.

        Args:
            subject: Name of the subject; it need not have a version yet.
            level: ``BACKWARD_TRANSITIVE`` or another level of the Confluent registry.

        Raises:
            RegistryError: The registry refused.
            RegistryUnavailableError: It could not be reached.
        """
        self._call("PUT", f"/config/{_part(subject)}", f"compatibility of {subject}", {"compatibility": level})

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._pool.clear()

    def _call(self, method: str, path: str, what: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self._pool.request(method, self.url + path, body=content)
        except urllib3.exceptions.HTTPError as error:
            if fault := tls_fault(error, _CA_VARIABLE):
                raise RegistryUnavailableError(f"{what}: the schema registry at {self.url}: {fault}") from error
            raise RegistryUnavailableError(
                f"{what}: the schema registry at {self.url} cannot be reached ({_reason(error)}): "
                "is AUDITSTREAM_SCHEMA_REGISTRY_URL right, and the registry up?"
            ) from error
        answer = _json_object(response.data)
        if response.status == 200 and answer is not None:
            return answer
        raise self._refusal(response.status, answer, response.data, what)

    def _refusal(self, status: int, answer: dict[str, Any] | None, content: bytes, what: str) -> RegistryError:
        code = (answer or {}).get("error_code", status)
        message = str((answer or {}).get("message") or content.decode("utf-8", "replace"))
        text = f"{message.strip()[:_SHOWN_CHARACTERS]!r} (error code {code})"
        if status == 429 or status >= 500:
            return RegistryUnavailableError(
                f"{what}: the schema registry at {self.url} answered {text}: try again later, or look at its log"
            )
        if code in {UNKNOWN_SUBJECT, UNKNOWN_VERSION, UNKNOWN_SCHEMA}:
            return UnknownSchemaError(
                f"{what}: not known to the schema registry at {self.url}: {text}; "
                "run `auditstream topics` to register the schema"
            )
        if status in {401, 403}:
            return RegistryError(
                f"{what}: the schema registry at {self.url} refused the login: {text}; "
                "check user and password in AUDITSTREAM_SCHEMA_REGISTRY_URL"
            )
        if status == 409:
            return RegistryError(
                f"{what}: incompatible with the versions that the schema registry at {self.url} has: {text}; "
                "only add fields with a default; remove no field and change no type"
            )
        if answer is None or "error_code" not in answer:
            return RegistryError(
                f"{what}: {self.url} answered {status} {text}, which is not an answer of a schema registry: "
                "is AUDITSTREAM_SCHEMA_REGISTRY_URL right?"
            )
        return RegistryError(f"{what}: the schema registry at {self.url} refused: {text}")


def _bad_url() -> str:
    return (
        "AUDITSTREAM_SCHEMA_REGISTRY_URL is malformed: write http://host:port or https://host:port, "
        "user:password@ before the host if needed, special characters in them percent-encoded"
    )


def _part(subject: str) -> str:
    return quote(subject, safe="")


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    inner = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
    return f"{type(inner).__name__}: {inner}"


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _integer(answer: Mapping[str, Any], key: str, url: str) -> int:
    value = answer.get(key)
    if not isinstance(value, int):
        raise RegistryError(_misfit(key, url))
    return value


def _text(answer: Mapping[str, Any], key: str, url: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str):
        raise RegistryError(_misfit(key, url))
    return value


def _misfit(key: str, url: str) -> str:
    return (
        f"{url} answered without {key!r}, which is not an answer of a schema registry: "
        "is AUDITSTREAM_SCHEMA_REGISTRY_URL right?"
    )
