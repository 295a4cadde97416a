"""Requests to the health port over a real socket on loopback."""

import json
import socket
from collections.abc import Iterator

import pytest
import urllib3

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink import SinkSettings
from auditstream_sink.clock import Clock
from auditstream_sink.health import Health
from auditstream_sink.health_server import HealthServer
from auditstream_sink.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Clock())


@pytest.fixture
def health(metrics: Metrics) -> Health:
    return Health(SinkSettings(), metrics, Clock())


@pytest.fixture
def server(health: Health, metrics: Metrics) -> Iterator[HealthServer]:
    server = HealthServer(":0", health, metrics.registry)
    server.start()
    yield server
    server.close()


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        yield pool


def test_the_answers_are_json_with_status_200_or_503(
    server: HealthServer, health: Health, http: urllib3.PoolManager
) -> None:
    alive = http.request("GET", f"{server.url}/healthz?verbose")
    assert (alive.status, alive.json()) == (200, {"alive": True, "reasons": [], "waits_for": {}})
    assert alive.headers["content-type"] == "application/json"
    early = http.request("GET", f"{server.url}/readyz")
    assert (early.status, early.json()["ready"], early.json()["reasons"]) == (
        503,
        False,
        ["not a member of its group yet"],
    )
    health.rebalanced("assigned", unpositioned=0)
    assert http.request("GET", f"{server.url}/readyz").status == 200
    health.waiting("batch", "clickhouse", "Code: 241, near 'a payload'")
    waiting = http.request("GET", f"{server.url}/readyz")
    assert waiting.status == 503
    assert list(waiting.json()["waits_for"]) == ["clickhouse"]
    assert b"payload" not in waiting.data


def test_the_metrics_have_the_format_of_the_accept_header(
    server: HealthServer, metrics: Metrics, http: urllib3.PoolManager
) -> None:
    metrics["consumed_records_total"].inc(7)
    plain = http.request("GET", f"{server.url}/metrics")
    assert plain.status == 200
    assert plain.headers["content-type"].startswith("text/plain")
    assert b"\nauditstream_sink_consumed_records_total 7.0\n" in plain.data
    assert b"\nprocess_resident_memory_bytes " in plain.data
    open_metrics = http.request("GET", f"{server.url}/metrics", headers={"accept": "application/openmetrics-text"})
    assert open_metrics.data.endswith(b"# EOF\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/healthz/..", "/debug"])
def test_other_paths_are_not_found(server: HealthServer, http: urllib3.PoolManager, path: str) -> None:
    response = http.request("GET", f"{server.url}{path}")
    assert response.status == 404
    assert response.json() == {"error": "there are /healthz, /readyz and /metrics"}


def test_head_has_no_body_and_other_methods_are_not_allowed(server: HealthServer, http: urllib3.PoolManager) -> None:
    head = http.request("HEAD", f"{server.url}/healthz")
    assert (head.status, head.data) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response = http.request(method, f"{server.url}/metrics", body=b"x")
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
        assert response.json() == {"error": "GET and HEAD only"}


def test_a_malformed_request_gets_an_error_and_the_server_goes_on(
    server: HealthServer, http: urllib3.PoolManager
) -> None:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert json.loads(answer[answer.index(b"{") :])["error"]
    assert http.request("GET", f"{server.url}/healthz").status == 200


def test_without_a_host_it_listens_on_loopback(server: HealthServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_an_error_that_names_the_setting(
    server: HealthServer, health: Health, metrics: Metrics
) -> None:
    address = server.url.removeprefix("http://")
    with pytest.raises(SinkError, match=f"AUDITSTREAM_HEALTH_ADDRESS {address}: .*in use"):
        HealthServer(address, health, metrics.registry)


def test_close_frees_the_port(health: Health, metrics: Metrics) -> None:
    first = HealthServer(":0", health, metrics.registry)
    first.start()
    first.close()
    HealthServer(first.url.removeprefix("http://"), health, metrics.registry).close()


@pytest.mark.parametrize("address", ["9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "localhost:-1"])
def test_a_malformed_address_is_refused(address: str, health: Health, metrics: Metrics) -> None:
    with pytest.raises(SettingsError, match="AUDITSTREAM_HEALTH_ADDRESS"):
        HealthServer(address, health, metrics.registry)


@pytest.mark.parametrize("address", ["127.0.0.1:70000", "203.0.113.1:0"])
def test_an_address_that_cannot_be_bound_is_an_error(address: str, health: Health, metrics: Metrics) -> None:
    with pytest.raises(SinkError, match="AUDITSTREAM_HEALTH_ADDRESS"):
        HealthServer(address, health, metrics.registry)
