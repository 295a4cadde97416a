"""The sink's health over HTTP: /healthz, /readyz and /metrics, read-only."""

import json
import socket
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from auditstream_schemas.errors import SettingsError, SinkError
from auditstream_sink.health import Health

_LOOPBACK = "127.0.0.1"
_CLIENT_SECONDS = 10.0
"""A client that takes longer to send its request or to read the answer is disconnected."""


class HealthServer:
    """Binds a port, and serves it after ``start`` in threads of its own. ``url`` is its address, without a path.

    Raises:
        SettingsError: The address is malformed. It is ``host:port``, or ``:port`` on loopback; port 0 is a free one.
        SinkError: The port cannot be bound.
    """

    def __init__(self, address: str, health: Health, registry: CollectorRegistry) -> None:
        host, port = _parsed(address)
        try:
            self._server = _HealthHttpServer(host, port, health, registry)
        except (OSError, OverflowError) as error:
            raise SinkError(
                f"AUDITSTREAM_HEALTH_ADDRESS {address}: {error}; name another port, or :0 for a free one"
            ) from error
        url_host = f"[{host}]" if ":" in host else host
        self.url = f"http://{url_host}:{self._server.server_address[1]}"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer requests from now on; does not block."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free the port. Blocks for a tenth of a second."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _HealthHttpServer(ThreadingHTTPServer):
    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        self.health, self.registry = health, registry
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _HealthHandler)

    def server_bind(self) -> None:
        # The inherited method also looks the host name up in the DNS, which may take seconds; the name is not used.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect; the inherited method prints a traceback."""


class _HealthHandler(BaseHTTPRequestHandler):
    server: _HealthHttpServer
    timeout = _CLIENT_SECONDS
    server_version = "auditstream"
    sys_version = ""

    def do_GET(self) -> None:
        path, health = self.path.partition("?")[0], self.server.health
        if path in {"/healthz", "/readyz"}:
            name, status = ("alive", health.alive()) if path == "/healthz" else ("ready", health.ready())
            code = HTTPStatus.OK if status.is_healthy else HTTPStatus.SERVICE_UNAVAILABLE
            content = {name: status.is_healthy, "reasons": status.reasons, "waits_for": status.waits_for}
            self._answer_json(code, content)
        elif path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("accept", ""))
            self._answer(HTTPStatus.OK, content_type, encoder(self.server.registry))
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "there are /healthz, /readyz and /metrics")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with JSON; other methods than GET and HEAD get status 405 instead of 501."""
        del explain
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code, message = HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD only"
        self._answer_json(code, {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: probes come every few seconds."""

    def _answer_json(self, code: int, content: dict[str, object]) -> None:
        self._answer(code, "application/json", json.dumps(content).encode() + b"\n")

    def _answer(self, code: int, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _parsed(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise SettingsError(
            f"AUDITSTREAM_HEALTH_ADDRESS: was {address!r}; write host:port, or :port for {_LOOPBACK}; "
            "port 0 takes a free one"
        )
    return host.strip("[]") or _LOOPBACK, int(port)
