"""A relay between a client and a server that counts what passes: round trips, commands, statements.

A round trip is anything that the client sends after the server's last answer, however many packets it takes,
followed by an answer. Commands and statements are read from the protocols: RESP arrays, and PostgreSQL's
Query and Execute messages. Only the runs that count go through it; those that measure time do not.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Protocol
from urllib.parse import urlsplit

_STEERING = (b"BEGIN", b"COMMIT", b"ROLLBACK", b"SAVEPOINT", b"RELEASE", b"START")


class _Reader(Protocol):
    def feed(self, data: bytes) -> int:
        """Take what a client sent; returns how many commands ended with it."""
        ...


class _Resp:
    """Redis' commands: ``*<items>`` and, for each, ``$<length>`` and the bytes."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> int:
        self._data += data
        found = 0
        while (end := self._command()) is not None:
            self._data = self._data[end:]
            found += 1
        return found

    def _command(self) -> int | None:
        line = self._data.find(b"\r\n")
        if line < 0:
            return None
        place = line + 2
        for _ in range(int(self._data[1:line])):
            line = self._data.find(b"\r\n", place)
            if line < 0:
                return None
            place = line + 2 + int(self._data[place + 1 : line]) + 2
        return place if place <= len(self._data) else None


class _Postgres:
    """PostgreSQL's statements, those that begin or end a transaction left out."""

    def __init__(self) -> None:
        self._data = b""
        self._started = False
        self._prepared: dict[bytes, bytes] = {}
        self._bound = b""

    def feed(self, data: bytes) -> int:
        self._data += data
        found = 0
        while True:
            head = 1 if self._started else 0
            if len(self._data) < head + 4:
                return found
            size = head + struct.unpack_from("!I", self._data, head)[0]
            if len(self._data) < size:
                return found
            message, self._data = self._data[:size], self._data[size:]
            if self._started:
                found += self._statement(message[:1], message[5:])
            else:
                self._started = struct.unpack_from("!I", message, 4)[0] >> 16 == 3  # not a request for TLS

    def _statement(self, kind: bytes, body: bytes) -> int:
        if kind == b"P":
            name, query, _ = body.split(b"\0", 2)
            self._prepared[name] = query
        elif kind == b"B":
            self._bound = self._prepared.get(body.split(b"\0", 2)[1], b"")
        elif kind == b"Q":
            return not body.lstrip().upper().startswith(_STEERING)
        elif kind == b"E":
            return not self._bound.lstrip().upper().startswith(_STEERING)
        return 0


class Relay:
    """Listens on a port of loopback, and passes everything on to a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._reader: type[_Reader] = _Resp if parts.scheme == "redis" else _Postgres
        self._target = (parts.hostname or "127.0.0.1", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{port}/", 1)
        self._lock = threading.Lock()
        self._client_spoke = False
        self.trips = 0
        self.commands = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self.trips = self.commands = 0
            self._client_spoke = False

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        reader = self._reader()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                with self._lock:
                    if from_client:
                        self.commands += reader.feed(data)
                        self._client_spoke = True
                    elif self._client_spoke:
                        self._client_spoke = False
                        self.trips += 1
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
