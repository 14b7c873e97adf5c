"""A datagram relay that does what networks do: lose, repeat and reorder, in both directions.

It runs in a thread of its own, so that it serves blocking and reactor clients alike.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from random import Random
from types import TracebackType

REORDER_DELAY_S = (0.002, 0.02)  # of what is held back, so that later ones overtake it


class Relay:
    """Stands in front of the datagram server at *host*, *port*; use it in a ``with``.

    Args:
        host: The server's numeric host.
        port: The server's port.
        seed: Of the randomness. What befalls a datagram also depends on the order they come in.
        loss, repeat, reorder: The share of datagrams, each way, that this happens to.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        seed: int = 1,
        loss: float = 0.0,
        repeat: float = 0.0,
        reorder: float = 0.0,
    ) -> None:
        self._server = (host, port)
        self._random = Random(seed)
        self._loss, self._repeat, self._reorder = loss, repeat, reorder
        self.came = self.lost = self.repeated = self.reordered = 0
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._front.setblocking(False)
        self.port = int(self._front.getsockname()[1])
        self._backs: dict[object, socket.socket] = {}  # one for each client
        self._held: list[tuple[float, int, socket.socket, bytes, object]] = []
        self._order = itertools.count()
        self._stops, self._stop = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ, None)
        self._selector.register(self._stops, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.send(b"x")
        self._thread.join()
        self._selector.close()
        for sock in (self._front, self._stop, self._stops, *self._backs.values()):
            sock.close()

    def _run(self) -> None:
        while True:
            wait = max(0.0, self._held[0][0] - time.monotonic()) if self._held else None
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._stops:
                    return
                self._read(key.fileobj, key.data)  # type: ignore[arg-type]
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, sock, data, name = heapq.heappop(self._held)
                self._send(sock, data, name)

    def _read(self, sock: socket.socket, client: object) -> None:
        while True:
            try:
                data, name = sock.recvfrom(65_535)
            except OSError:
                return
            if client is None:
                self._pass(self._back(name), data, self._server)
            else:
                self._pass(self._front, data, client)

    def _back(self, client: object) -> socket.socket:
        if client not in self._backs:
            back = self._backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.setblocking(False)
            self._selector.register(back, selectors.EVENT_READ, client)
        return self._backs[client]

    def _pass(self, sock: socket.socket, data: bytes, name: object) -> None:
        draw = self._random.random
        self.came += 1
        if draw() < self._loss:
            self.lost += 1
            return
        copies = 1
        if draw() < self._repeat:
            self.repeated += 1
            copies = 2
        for _ in range(copies):
            if draw() < self._reorder:
                self.reordered += 1
                when = time.monotonic() + self._random.uniform(*REORDER_DELAY_S)
                heapq.heappush(self._held, (when, next(self._order), sock, data, name))
            else:
                self._send(sock, data, name)

    def _send(self, sock: socket.socket, data: bytes, name: object) -> None:
        with contextlib.suppress(OSError):  # a full buffer, or nobody there: lost
            sock.sendto(data, name)  # type: ignore[arg-type]
