"""A TCP proxy that makes trouble: cuts, delays, half-closes, refuses, and swallows answers."""

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
    """One client's connection, and the one made for it to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.last_words = b""
        self._swallows = threading.Event()

    @property
    def swallows(self) -> bool:
        """Whether the next answer is to be lost."""
        return self._swallows.is_set()

    def swallow_answer(self) -> None:
        """Let what the client says through, and reset its connection when the server answers."""
        self._swallows.set()

    def reset(self) -> None:
        """End both connections with a reset."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                # Wakes the thread that reads from it, which a close alone does not.
                end.shutdown(socket.SHUT_RDWR)
            end.close()


Watch = tuple[re.Pattern[bytes], Callable[[Conversation], None]]


class TcpProxy:
    """Leads connections to a server until it is told otherwise; a context manager. Safe to use from any thread.

    Attributes:
        address: ``host:port`` on which it listens.
        port: That port.
    """

    def __init__(self, target: str, *, port: int = 0) -> None:
        """Listen; connections are led on once the context is entered.

        Args:
            target: ``host:port`` of the server; may be changed with `lead_to`.
            port: Where to listen on 127.0.0.1; by default a free port.
        """
        self.lead_to(target)
        self._door = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = int(self._door.getsockname()[1])
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
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()

    def lead_to(self, target: str) -> None:
        """Lead new connections to this server, ``host:port``."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    def cut(self) -> None:
        """Reset every connection there is."""
        for each in self._current():
            each.reset()

    def half_close(self) -> None:
        """Tell every client that the server has nothing more to say; what the client says still gets through."""
        for each in self._current():
            with suppress(OSError):
                each.client.shutdown(socket.SHUT_WR)

    def refuse(self) -> None:
        """Reset new connections as soon as they are made."""
        self._refuses = True

    def delay(self, seconds: float) -> None:
        """Hold up every piece, both ways, for so long."""
        self._delay = seconds

    def swallow(self) -> None:
        """Let clients speak and keep every answer from them: a server that went deaf, as they see it."""
        self._swallows = True

    def watch(self, pattern: bytes, call: Callable[[Conversation], None]) -> Watch:
        """Call when a client says something that matches, before the server hears it. Blocks the client meanwhile.

        Returns:
            What `unwatch` takes.
        """
        watch = (re.compile(pattern), call)
        self._watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Watch no longer."""
        with suppress(ValueError):
            self._watches.remove(watch)

    def calm(self) -> None:
        """Refuse, delay and swallow no more. Answers that were swallowed stay lost."""
        self._refuses = self._swallows = False
        self._delay = 0.0

    def heal(self) -> None:
        """Stop all trouble, and watch for nothing."""
        self.calm()
        self._watches = []

    def _current(self) -> list[Conversation]:
        with self._lock:
            return list(self._conversations)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
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
        heard = conversation.last_words + piece
        for pattern, call in list(self._watches):
            # What ended in the words before was told already.
            if any(found.end() > len(conversation.last_words) for found in pattern.finditer(heard)):
                call(conversation)
        conversation.last_words = heard[-_OVERLAP:]
