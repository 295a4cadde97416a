"""A TCP proxy that injects faults: cuts, delays, half-closes and refuses connections, and drops answers."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE = 65_536
_OVERLAP = 256
_RESET = struct.pack("ii", 1, 0)


class Conversation:
    """The connection of one client, and the connection to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.last_bytes = b""
        self._swallows = threading.Event()

    @property
    def swallows(self) -> bool:
        """Whether the next answer is dropped."""
        return self._swallows.is_set()

    def swallow_answer(self) -> None:
        """Forward the client's request, and reset the connection when the server answers."""
        self._swallows.set()

    def reset(self) -> None:
        """End both connections with a reset."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # A close alone does not wake the thread that reads from the socket.
                end.shutdown(socket.SHUT_RDWR)
            end.close()


Watch = tuple[re.Pattern[bytes], Callable[[Conversation], None]]


class TcpProxy:
    """Forwards connections to a server, with faults on request; a context manager. Safe to use from any thread.

    Attributes:
        address: ``host:port`` on which it listens.
        port: That port.
    """

    def __init__(self, target: str, *, port: int = 0) -> None:
        """Listen; connections are forwarded once the context is entered.

        Args:
            target: ``host:port`` of the server; may be changed with `forward_to`.
            port: Where to listen on 127.0.0.1; by default a free port.
        """
        self.forward_to(target)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._conversations: set[Conversation] = set()
        self._watches: list[Watch] = []
        self._refuses = self._swallows = False
        self._delay = 0.0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def forward_to(self, target: str) -> None:
        """Forward new connections to this server, ``host:port``."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    def cut(self) -> None:
        """Reset every connection."""
        for conversation in self._current():
            conversation.reset()

    def half_close(self) -> None:
        """End the server's side of every connection; the client's data is still forwarded."""
        for conversation in self._current():
            with suppress(OSError):
                conversation.client.shutdown(socket.SHUT_WR)

    def refuse(self) -> None:
        """Reset new connections at once."""
        self._refuses = True

    def delay(self, seconds: float) -> None:
        """Delay all data, in both directions, by so many seconds."""
        self._delay = seconds

    def swallow(self) -> None:
        """Forward requests and drop every answer, as if the server had stopped answering."""
        self._swallows = True

    def watch(self, pattern: bytes, call: Callable[[Conversation], None]) -> Watch:
        """Call when the data of a client matches, before it is forwarded. The client waits meanwhile.

        Returns:
            The argument of `unwatch`.
        """
        watch = (re.compile(pattern), call)
        self._watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Remove a watch."""
        with suppress(ValueError):
            self._watches.remove(watch)

    def calm(self) -> None:
        """Stop refusing, delaying and dropping. Answers that were dropped stay lost."""
        self._refuses = self._swallows = False
        self._delay = 0.0

    def heal(self) -> None:
        """Stop all faults, and remove all watches."""
        self.calm()
        self._watches = []

    def _current(self) -> list[Conversation]:
        with self._lock:
            return list(self._conversations)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._begin, args=(client,), daemon=True).start()

    def _begin(self, client: socket.socket) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = Conversation(client, server)
        with self._lock:
            self._conversations.add(conversation)
        downwards = threading.Thread(target=self._pump, args=(conversation, server, client), daemon=True)
        downwards.start()
        self._pump(conversation, client, server)
        downwards.join()
        with self._lock:
            self._conversations.discard(conversation)
        for end in (client, server):
            end.close()

    def _pump(self, conversation: Conversation, source: socket.socket, sink: socket.socket) -> None:
        upwards = source is conversation.client
        try:
            while piece := source.recv(_PIECE):
                if self._delay:
                    time.sleep(self._delay)
                if upwards:
                    self._listen_in(conversation, piece)
                elif conversation.swallows:
                    conversation.reset()
                    return
                elif self._swallows:
                    continue
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            conversation.reset()

    def _listen_in(self, conversation: Conversation, piece: bytes) -> None:
        if not self._watches:
            return
        data = conversation.last_bytes + piece
        for pattern, call in list(self._watches):
            # A match that ends in the previous bytes was reported already.
            if any(match.end() > len(conversation.last_bytes) for match in pattern.finditer(data)):
                call(conversation)
        conversation.last_bytes = data[-_OVERLAP:]
