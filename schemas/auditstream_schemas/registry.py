"""Client of a schema registry with the Confluent REST API.

Services look schemas up. Only the deploy step registers them.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import urllib3
from urllib3.util import Retry, Timeout, parse_url

from auditstream_schemas.errors import RegistryError, RegistryUnavailableError, SettingsError, UnknownSchemaError
from auditstream_schemas.tls import checked_ca_file, tls_fault

_T = TypeVar("_T")

_UNKNOWN = {40401, 40402, 40403}  # Error codes of an unknown subject, version and schema.
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_SHOWN_CHARACTERS = 300
_CA_VARIABLE = "AUDITSTREAM_SCHEMA_REGISTRY_CA_FILE"
_BAD_URL = (
    "AUDITSTREAM_SCHEMA_REGISTRY_URL is malformed: write http://host:port or https://host:port, "
    "user:password@ before the host if needed, special characters in them percent-encoded"
)


class RegistryClient:
    """A client of the registry over HTTP or HTTPS. Safe to share between threads.

    Every call blocks until it is answered: ``timeout`` seconds a try at most, and ``retries`` more tries with growing
    pauses when the registry cannot be reached or answers 5xx or 429. Every call can be repeated without harm. Every
    call raises `RegistryUnavailableError` if the registry cannot be reached, and `RegistryError` if it refuses.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None, timeout: float = 5.0, retries: int = 3) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            url: ``http://`` or ``https://`` and host, ``user:password@`` before the host if needed.
                Messages do not contain the user's name and password.
            ca_file: Certificate of the CA that signed the registry's; None for the system's CAs.
            timeout: Seconds that one try may take.
            retries: Tries after the first; 0 for a caller that tries again itself.

        Raises:
            SettingsError: The URL is malformed, or the CA file cannot be used.
        """
        try:
            parsed = parse_url(url)
        except urllib3.exceptions.LocationParseError as error:
            raise SettingsError(_BAD_URL) from error
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise SettingsError(_BAD_URL)
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
        """
        path = f"/subjects/{quote(subject, safe='')}"
        return self._value(self._call("POST", path, f"schema of {subject}", {"schema": schema_json}), "id", int)

    def schema(self, schema_id: int) -> str:
        """Return the schema with this id, as JSON text.

        Raises:
            UnknownSchemaError: No schema has this id.
        """
        return self._value(self._call("GET", f"/schemas/ids/{schema_id}", f"schema {schema_id}"), "schema", str)

    def register(self, subject: str, schema_json: str) -> int:
        """Add a schema to a subject if the subject lacks it, and return its id.

        Raises:
            RegistryError: The schema is malformed, or incompatible with the versions that the subject has.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        return self._value(self._call("POST", path, f"schema for {subject}", {"schema": schema_json}), "id", int)

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the compatibility level of a subject, such as ``BACKWARD_TRANSITIVE``. It need not have a version yet."""
        path = f"/config/{quote(subject, safe='')}"
        self._call("PUT", path, f"compatibility of {subject}", {"compatibility": level})

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._pool.clear()

    def _value(self, answer: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
        value = answer.get(key)
        if not isinstance(value, kind):
            raise RegistryError(
                f"{self.url} answered without {key!r}, which is not an answer of a schema registry: "
                "is AUDITSTREAM_SCHEMA_REGISTRY_URL right?"
            )
        return value

    def _call(self, method: str, path: str, label: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send one request. Messages of errors begin with the label: the name of the requested thing."""
        try:
            response = self._pool.request(method, self.url + path, body=None if body is None else json.dumps(body))
        except urllib3.exceptions.HTTPError as error:
            if fault := tls_fault(error, _CA_VARIABLE):
                raise RegistryUnavailableError(f"{label}: the schema registry at {self.url}: {fault}") from error
            cause = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason else error
            raise RegistryUnavailableError(
                f"{label}: the schema registry at {self.url} cannot be reached ({type(cause).__name__}: {cause}): "
                "is AUDITSTREAM_SCHEMA_REGISTRY_URL right, and the registry up?"
            ) from error
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if response.status == 200 and isinstance(answer, dict):
            return answer
        raise self._refusal(response.status, answer if isinstance(answer, dict) else {}, response.data, label)

    def _refusal(self, status: int, answer: dict[str, Any], content: bytes, label: str) -> RegistryError:
        registry = f"the schema registry at {self.url}"
        code = answer.get("error_code", status)
        message = str(answer.get("message") or content.decode("utf-8", "replace"))
        text = f"{message.strip()[:_SHOWN_CHARACTERS]!r} (error code {code})"
        if status == 429 or status >= 500:
            return RegistryUnavailableError(f"{label}: {registry} answered {text}: try again later, or look at its log")
        if code in _UNKNOWN:
            return UnknownSchemaError(
                f"{label}: not known to {registry}: {text}; run `auditstream topics` to register the schema"
            )
        if status in {401, 403}:
            fix = "check user and password in AUDITSTREAM_SCHEMA_REGISTRY_URL"
            return RegistryError(f"{label}: {registry} refused the login: {text}; {fix}")
        if status == 409:
            fix = "only add fields with a default; remove no field and change no type"
            return RegistryError(f"{label}: incompatible with the versions that {registry} has: {text}; {fix}")
        if "error_code" not in answer:
            return RegistryError(
                f"{label}: {self.url} answered {status} {text}, which is not an answer of a schema registry: "
                "is AUDITSTREAM_SCHEMA_REGISTRY_URL right?"
            )
        return RegistryError(f"{label}: {registry} refused: {text}")
