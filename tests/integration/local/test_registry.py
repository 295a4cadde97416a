"""The registry stand-in over HTTP: with our client, with Confluent's, with raw requests; through a SIGKILL."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3

from auditstream_local.endpoints import registry_fault
from auditstream_local.server import HOST, Server, free_ports, python_module
from auditstream_schemas.errors import RegistryError, RegistryUnavailableError, UnknownSchemaError
from auditstream_schemas.registry import RegistryClient

FIELD_A = {"name": "a", "type": "string", "doc": "ä"}
FIELD_B = {"name": "b", "type": ["null", "long"], "default": None}
FIELD_C = {"name": "c", "type": "string"}


def schema(*fields: dict[str, Any], indent: int | None = None) -> str:
    return json.dumps({"type": "record", "name": "R", "namespace": "n", "fields": list(fields)}, indent=indent)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("registry")
    (port,) = free_ports(1)
    command = python_module("auditstream_local.registry.server", "--port", str(port), "--data-dir", str(directory))
    server = Server("registry", command, directory / "log", partial(registry_fault, f"http://{HOST}:{port}"))
    server.start()
    server.wait_until_answering(time.monotonic() + 30)
    yield server
    server.stop()


@pytest.fixture
def url(server: Server) -> str:
    return f"http://{HOST}:{server_port(server)}"


@pytest.fixture
def client(url: str) -> Iterator[RegistryClient]:
    client = RegistryClient(url)
    yield client
    client.close()


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}-value"


def server_port(server: Server) -> int:
    return int(server.command[server.command.index("--port") + 1])


def call(method: str, url: str, body: object = None) -> tuple[int, Any]:
    response = urllib3.request(method, url, json=body, retries=False, timeout=10)
    assert response.headers["content-type"] == "application/vnd.schemaregistry.v1+json"
    return response.status, response.json()


def test_a_registered_schema_is_found_by_text_by_id_and_as_the_latest(client: RegistryClient, subject: str) -> None:
    text = schema(FIELD_A)
    number = client.register(subject, text)

    assert client.schema_id(subject, text) == number
    assert client.schema(number) == text
    latest = client.latest(subject)
    assert (latest.subject, latest.version, latest.schema_id, latest.schema) == (subject, 1, number, text)


def test_one_schema_has_one_id_in_every_spelling_and_subject(client: RegistryClient, url: str, subject: str) -> None:
    number = client.register(subject, schema(FIELD_A))

    assert client.register(subject, schema(FIELD_A, indent=4)) == number
    assert client.register(f"other-{subject}", schema(dict(reversed(FIELD_A.items())))) == number
    assert client.register(subject, schema({**FIELD_A, "doc": "other"})) != number
    assert call("GET", f"{url}/subjects/{subject}/versions") == (200, [1, 2])
    _, uses = call("GET", f"{url}/schemas/ids/{number}/versions")
    assert {"subject": subject, "version": 1} in uses
    assert {"subject": f"other-{subject}", "version": 1} in uses


def test_an_unknown_schema_differs_from_a_refused_request(client: RegistryClient, subject: str) -> None:
    with pytest.raises(UnknownSchemaError, match=r"40401.*run `auditstream topics`"):
        client.schema_id(subject, schema(FIELD_A))
    with pytest.raises(UnknownSchemaError, match="40401"):
        client.latest(subject)
    with pytest.raises(UnknownSchemaError, match="40403"):
        client.schema(2_000_000_000)
    client.register(subject, schema(FIELD_A))
    with pytest.raises(UnknownSchemaError, match="40403"):
        client.schema_id(subject, schema(FIELD_A, FIELD_B))
    with pytest.raises(RegistryError, match="42201") as refused:
        client.register(subject, '{"type": "recrd"}')
    assert not isinstance(refused.value, UnknownSchemaError | RegistryUnavailableError)


@pytest.mark.parametrize(
    ("level", "added_with_default", "added_without", "taken_away"),
    [
        ("BACKWARD_TRANSITIVE", True, False, True),
        ("BACKWARD", True, False, True),
        ("FORWARD", True, True, False),
        ("FULL", True, False, False),
        ("NONE", True, True, True),
    ],
)
def test_an_incompatible_schema_is_refused(
    client: RegistryClient,
    url: str,
    subject: str,
    level: str,
    added_with_default: bool,
    added_without: bool,
    taken_away: bool,
) -> None:
    client.register(subject, schema(FIELD_A, FIELD_C))
    client.set_compatibility(subject, level)
    expected = {
        schema(FIELD_A, FIELD_C, FIELD_B): added_with_default,
        schema(FIELD_A, FIELD_C, {"name": "d", "type": "int"}): added_without,
        schema(FIELD_A): taken_away,
    }
    for text, allowed in expected.items():
        path = f"{url}/compatibility/subjects/{subject}/versions/latest?verbose=true"
        status, answer = call("POST", path, {"schema": text})
        assert (status, answer["is_compatible"], bool(answer["messages"])) == (200, allowed, not allowed), text

    refused = [text for text, allowed in expected.items() if not allowed]
    for text in refused:
        with pytest.raises(RegistryError, match="error code 409"):
            client.register(subject, text)
    assert call("GET", f"{url}/subjects/{subject}/versions") == (200, [1])


def test_a_transitive_level_compares_every_version(client: RegistryClient, subject: str) -> None:
    as_long = {"name": "x", "type": "long"}
    client.set_compatibility(subject, "NONE")
    client.register(subject, schema(as_long))
    client.register(subject, schema())
    client.set_compatibility(subject, "BACKWARD")
    client.register(subject, schema({**as_long, "type": "string", "default": ""}))
    client.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    with pytest.raises(RegistryError, match="long"):
        client.register(subject, schema({**as_long, "type": "string", "default": "new"}))


def test_error_codes_are_those_of_the_api(client: RegistryClient, url: str, subject: str) -> None:
    client.register(subject, schema(FIELD_A))
    expected = {
        ("GET", "/subjects/unknown/versions"): 40401,
        ("GET", f"/subjects/{subject}/versions/7"): 40402,
        ("GET", f"/subjects/{subject}/versions/none"): 42202,
        ("GET", "/schemas/ids/2000000000"): 40403,
        ("GET", f"/config/{subject}"): 40408,
        ("GET", "/nowhere"): 404,
        ("DELETE", f"/subjects/{subject}?permanent=true"): 40405,
    }
    for (method, path), code in expected.items():
        status, answer = call(method, url + path)
        assert (status, answer["error_code"]) == (int(str(code)[:3]), code), path
    _, answer = call("PUT", f"{url}/config/{subject}", {"compatibility": "SIDEWAYS"})
    assert answer["error_code"] == 42203
    _, answer = call("POST", f"{url}/subjects/{subject}/versions", {"schema": "{}", "schemaType": "PROTOBUF"})
    assert answer["error_code"] == 42201


def test_other_routes(client: RegistryClient, url: str, subject: str) -> None:
    text = schema(FIELD_A)
    client.register(subject, text)
    client.set_compatibility(subject, "FULL")

    assert call("GET", f"{url}/schemas/types") == (200, ["AVRO"])
    assert call("GET", f"{url}/config") == (200, {"compatibilityLevel": "BACKWARD"})
    assert call("GET", f"{url}/config/{subject}") == (200, {"compatibilityLevel": "FULL"})
    assert call("GET", f"{url}/subjects/{subject}/versions/latest/schema") == (200, json.loads(text))
    assert subject in call("GET", f"{url}/subjects")[1]


def test_a_deleted_subject_is_hidden_and_its_schema_still_read(client: RegistryClient, url: str, subject: str) -> None:
    number = client.register(subject, schema(FIELD_A))
    assert call("DELETE", f"{url}/subjects/{subject}") == (200, [1])

    assert subject not in call("GET", f"{url}/subjects")[1]
    with pytest.raises(UnknownSchemaError):
        client.schema_id(subject, schema(FIELD_A))
    assert client.schema(number) == schema(FIELD_A)
    assert client.register(subject, schema(FIELD_A)) == number
    assert client.latest(subject).version == 2


def test_every_acknowledged_change_survives_sigkill(server: Server, client: RegistryClient, subject: str) -> None:
    client.set_compatibility(subject, "FULL")
    number = client.register(subject, schema(FIELD_A))
    server.kill()
    with pytest.raises(RegistryUnavailableError, match="AUDITSTREAM_SCHEMA_REGISTRY_URL"):
        client.schema(number)
    server.start()
    server.wait_until_answering(time.monotonic() + 30)

    assert client.schema_id(subject, schema(FIELD_A)) == number
    with pytest.raises(RegistryError, match="409"):
        client.register(subject, schema(FIELD_C))


@pytest.mark.filterwarnings("ignore:The httpx module:DeprecationWarning")
def test_confluents_client_registers_and_looks_up(url: str, subject: str) -> None:
    library = pytest.importorskip(
        "confluent_kafka.schema_registry",
        reason="confluent-kafka's extra 'schemaregistry' is not installed",
        exc_type=ImportError,
    )
    text = schema(FIELD_A, FIELD_B)
    with library.SchemaRegistryClient({"url": url}) as client:
        number = client.register_schema(subject, library.Schema(text, "AVRO"))
        assert client.lookup_schema(subject, library.Schema(text, "AVRO")).schema_id == number
        assert client.get_schema(number).schema_str == text
        assert client.get_latest_version(subject).version == 1
        assert client.get_versions(subject) == [1]
        client.set_compatibility(subject, "FULL_TRANSITIVE")
        assert client.get_compatibility(subject) == "FULL_TRANSITIVE"
        assert not client.test_compatibility(subject, library.Schema(schema(FIELD_C), "AVRO"))
        assert client.delete_subject(subject) == [1]
        with pytest.raises(library.SchemaRegistryError) as unknown:
            client.get_versions(subject)
        assert unknown.value.error_code == 40401


class _Scripted(BaseHTTPRequestHandler):
    """Answers each request with the next (status, body) of the script; the last one stays."""

    script: tuple[tuple[int, str], ...]
    seen: list[str | None]

    def do_GET(self) -> None:
        status, body = self.script[min(len(self.seen), len(self.script) - 1)]
        self.seen.append(self.headers["authorization"])
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Any]:
    servers = []

    def start(*script: tuple[int, str]) -> tuple[str, list[str | None]]:
        handler = type("Handler", (_Scripted,), {"script": script, "seen": []})
        server = ThreadingHTTPServer((HOST, 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"{HOST}:{server.server_port}", handler.seen  # type: ignore[attr-defined]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_passing_fault_is_tried_again(scripted: Any) -> None:
    address, seen = scripted((503, ""), (500, "oops"), (200, '{"schema": "\\"string\\""}'))
    assert RegistryClient(f"http://{address}").schema(1) == '"string"'
    assert len(seen) == 3


def test_a_lasting_fault_is_unavailable_not_unknown(scripted: Any) -> None:
    address, seen = scripted((503, '{"error_code": 50302, "message": "no leader"}'))
    with pytest.raises(RegistryUnavailableError, match="no leader"):
        RegistryClient(f"http://{address}").schema(1)
    assert len(seen) == 4


def test_credentials_are_sent_and_never_shown(scripted: Any) -> None:
    address, seen = scripted((401, '{"error_code": 40101, "message": "Unauthorized"}'))
    client = RegistryClient(f"http://us%40er:s%C3%A9cret%3A@{address}/base/")
    with pytest.raises(RegistryError, match=r"user and password in AUDITSTREAM_SCHEMA_REGISTRY_URL") as refused:
        client.schema(1)

    assert base64.b64decode(str(seen[0]).removeprefix("Basic ")).decode() == "us@er:sécret:"
    for text in (str(refused.value), repr(client)):
        assert "cret" not in text
        assert "er:" not in text


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"schema": 7}'])
def test_an_answer_that_is_not_a_registrys_is_an_error(scripted: Any, body: str) -> None:
    address, _ = scripted((200, body))
    with pytest.raises(RegistryError, match="not an answer of a schema registry"):
        RegistryClient(f"http://{address}").schema(1)


def test_the_data_file_is_whole_after_every_change(server: Server, client: RegistryClient, subject: str) -> None:
    client.register(subject, schema(FIELD_A))
    directory = Path(server.command[server.command.index("--data-dir") + 1])
    assert subject in json.loads((directory / "registry.json").read_text("utf-8"))["subjects"]
    assert not (directory / "registry.part").exists()
