"""A TCP proxy that breaks connections to a server at chosen moments."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from .ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

_CHUNK = 65536
_QUIET_MILLISECONDS = 50
_CONNECT_SECONDS = 10.0
_JOIN_SECONDS = 10.0


@dataclass
class _Rule:
    """When to cut, and how often still (None is each time)."""

    kind: Literal["after bytes", "before request", "before reply"]
    times: int | None
    match: bytes = b""
    limit: int = 0


class _Link:
    """One client's connection, and the proxy's own to the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.cut = False
        self.forget()

    def forget(self) -> None:
        """Start afresh under a new rule."""
        self.sent = 0
        self.tail = b""
        self.doomed = False

    def shut(self) -> None:
        """End both connections. The threads that read them wake up, and the last one closes them."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def contains(self, chunk: bytes, match: bytes) -> bool:
        """Whether `match` ends in this chunk; it may have begun in those before."""
        seen = self.tail + chunk
        self.tail = seen[max(0, len(seen) - len(match) + 1) :]
        return match in seen


class FaultProxy:
    """A proxy on loopback in front of a server, with modes that cut connections or let them hang.

    The cutting modes work once unless told otherwise (`times`, None is each time), and the proxy is healthy
    again afterwards, so that a client's second attempt succeeds. A new mode replaces the one before. Both
    ends of a cut connection see it closed. Counts are exact when a client notices a cut.
    """

    def __init__(self, target_port: int, target_host: str = LOOPBACK) -> None:
        """Describe a proxy; `start` makes it listen."""
        self._target = (target_host, target_port)
        self._listener: socket.socket | None = None
        self._changed = threading.Condition()
        self._links: set[_Link] = set()
        self._threads: set[threading.Thread] = set()
        self._rule: _Rule | None = None
        self._held = False
        self._refusing = False
        self._closed = False
        self.connections = 0
        """Connections that clients made."""
        self.cuts = 0
        """Connections that the proxy cut or refused."""
        self.client_bytes = 0
        """Bytes passed on from clients to the server."""
        self.server_bytes = 0
        """Bytes passed on from the server to clients."""

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that clients connect to."""
        if self._listener is None:
            raise RuntimeError("The proxy is not running.")
        return int(self._listener.getsockname()[1])

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        with self._changed:
            return len(self._links)

    def url(self, server_url: str) -> str:
        """A server's connection string, changed so that it leads through the proxy."""
        parts = urlsplit(server_url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}{LOOPBACK}:{self.port}"))

    # Modes

    def cut_after_client_bytes(self, count: int, *, times: int | None = 1) -> None:
        """Cut a connection once its client has sent `count` further bytes; only these reach the server."""
        self._arm(_Rule("after bytes", times, limit=count))

    def cut_before_request(self, match: bytes, *, times: int | None = 1) -> None:
        """Cut a connection when its client sends these bytes; the request does not reach the server."""
        self._arm(_Rule("before request", times, match=match))

    def cut_before_reply(self, match: bytes, *, times: int | None = 1) -> None:
        """Cut a connection when the server answers these bytes: it was executed, the reply is lost."""
        self._arm(_Rule("before reply", times, match=match))

    def drop_all(self, *, refuse: bool = False) -> None:
        """Cut all connections, as a restart of the server would; with `refuse`, new ones too until `heal`."""
        with self._changed:
            self._refusing = refuse
            for link in list(self._links):
                self._cut(link)

    def hold(self) -> None:
        """Accept connections and bytes, and pass nothing on in either direction until `heal`."""
        with self._changed:
            self._held = True

    def heal(self) -> None:
        """End every mode. What was held is passed on, also what a client sent before it gave up."""
        with self._changed:
            self._refusing = False
            self._held = False
            self._arm(None)
            self._changed.notify_all()

    # Life

    def start(self) -> Self:
        """Listen on a free port."""
        listener = socket.create_server((LOOPBACK, 0), backlog=512)
        self._listener = listener
        self._spawn(self._accept, listener)
        return self

    def close(self) -> None:
        """Cut everything and stop. Calling this twice is fine."""
        listener = self._listener
        if listener is None or self._closed:
            return
        with self._changed:
            self._closed = True
            for link in self._links:
                link.cut = True
                link.shut()
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        for thread in list(self._threads):
            thread.join(_JOIN_SECONDS)
        listener.close()

    def __enter__(self) -> Self:
        """Start the proxy unless it runs already."""
        return self if self._listener is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cut everything and stop."""
        self.close()

    # How it works: one thread accepts, and each connection has one per direction

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            with self._changed:
                if self._closed:
                    client.close()
                    return
                self.connections += 1
                if self._refusing:
                    self.cuts += 1
                    client.close()
                    continue
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=_CONNECT_SECONDS)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._changed:
            self._links.add(link)
            if self._closed:
                link.shut()
        replies = self._spawn(self._pass_replies, link)
        self._pass_requests(link)
        replies.join()
        with self._changed:
            self._links.discard(link)
        client.close()
        server.close()

    def _pass_requests(self, link: _Link) -> None:
        try:
            while chunk := self._receive(link, link.client):
                with self._changed:
                    passed, cut = self._apply(link, chunk)
                    self.client_bytes += len(passed)
                link.server.sendall(passed)
                if cut:
                    with self._changed:
                        self._cut(link)
                    return
            link.server.shutdown(socket.SHUT_WR)
        except OSError:
            link.shut()

    def _pass_replies(self, link: _Link) -> None:
        try:
            while chunk := self._receive(link, link.server):
                with self._changed:
                    doomed = link.doomed
                    self.server_bytes += 0 if doomed else len(chunk)
                if doomed:
                    self._discard(link)
                    return
                link.client.sendall(chunk)
            link.client.shutdown(socket.SHUT_WR)
        except OSError:
            link.shut()

    def _receive(self, link: _Link, side: socket.socket) -> bytes:
        """Wait for bytes, and then until nothing is held; empty when that side sends no more."""
        chunk = side.recv(_CHUNK)
        with self._changed:
            self._changed.wait_for(lambda: not self._held or link.cut)
        return b"" if link.cut else chunk

    def _apply(self, link: _Link, chunk: bytes) -> tuple[bytes, bool]:
        """What of the client's bytes to pass on, and whether to cut the connection then."""
        rule = self._rule
        if rule is None:
            return chunk, False
        if rule.kind == "after bytes":
            room = rule.limit - link.sent
            link.sent += len(chunk)
            if len(chunk) < room:
                return chunk, False
            self._use_up(rule)
            return chunk[:room], True
        if not link.contains(chunk, rule.match):
            return chunk, False
        self._use_up(rule)
        if rule.kind == "before request":
            return b"", True
        link.doomed = True
        return chunk, False

    def _discard(self, link: _Link) -> None:
        """Drop a reply up to its end, so that the server finishes what it was asked, and cut."""
        poll = select.poll()
        poll.register(link.server, select.POLLIN)
        with contextlib.suppress(OSError):
            while poll.poll(_QUIET_MILLISECONDS) and link.server.recv(_CHUNK):
                pass
        with self._changed:
            self._cut(link)

    def _cut(self, link: _Link) -> None:
        """Cut a connection; the caller holds the lock."""
        if not link.cut:
            link.cut = True
            self.cuts += 1
            link.shut()
            self._changed.notify_all()

    def _arm(self, rule: _Rule | None) -> None:
        with self._changed:
            self._rule = rule
            for link in self._links:
                link.forget()

    def _use_up(self, rule: _Rule) -> None:
        if rule.times is not None:
            rule.times -= 1
            if rule.times <= 0:
                self._rule = None

    def _spawn(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"fault-proxy-{work.__name__}", daemon=True)
        self._threads.add(thread)
        thread.start()
        return thread
