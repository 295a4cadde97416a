"""The port of a server that is away until the test lets connections through."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class LatePort:
    """A TCP port that refuses connections until it is opened, and then forwards them to a server.

    Attributes:
        address: ``host:port`` of this port.
    """

    def __init__(self, target: str) -> None:
        """Reserve a free port; connections to it are refused.

        Args:
            target: ``host:port`` of the server.
        """
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._ends: list[socket.socket] = []

    def open(self) -> None:
        """Forward connections from now on."""
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                outside, _ = self._listener.accept()
                inside = socket.create_connection(self._target)
                self._ends += [outside, inside]
                for source, sink in ((outside, inside), (inside, outside)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65_536):
            sink.sendall(content)
        sink.shutdown(socket.SHUT_WR)
