"""An HTTP relay in front of ClickHouse that alters answers."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

_ROWS = (b"FORMAT CSV", b"FORMAT TSVRaw", b"FORMAT Parquet")

Send = Callable[[bytes], None]
Spoil = Callable[[bytes, Send], bool]
"""Gets the body of an answer with exported rows, and a function that sends bytes. Returns whether the answer then ends
properly; if not, the connection is cut."""
Instead = Callable[[bytes], bytes | None]
"""Gets the body of a request. Returns the body of an answer of status 200, or None to forward the request."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that closes the connection early is not an error.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def relay(url: str, spoil: Spoil, instead: Instead = lambda _request: None) -> Iterator[str]:
    """Serve on a free port; yields its URL. All other answers pass unchanged."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = b"".join(self._body())
            replacement = instead(body)
            if replacement is not None:
                self.send_response(200)
                self.send_header("content-length", str(len(replacement)))
                self.end_headers()
                self.wfile.write(replacement)
                return
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in {"host", "content-length", "transfer-encoding"}
            }
            answer = pool.request(self.command, url + self.path, body=body, headers=headers, decode_content=False)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"transfer-encoding", "content-length", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            if answer.status == 200 and any(name in body for name in _ROWS):
                is_complete = spoil(answer.data, self._send)
            else:
                self._send(answer.data)
                is_complete = True
            if is_complete:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = not is_complete

        def _body(self) -> Iterator[bytes]:
            if self.headers.get("transfer-encoding") != "chunked":
                yield self.rfile.read(int(self.headers.get("content-length") or 0))
                return
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def _send(self, piece: bytes) -> None:
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()

    with urllib3.PoolManager() as pool, _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
