"""An HTTP proxy in front of a server, which counts requests, answers some itself and loses answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .ports import LOOPBACK

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


@dataclass(frozen=True)
class Request:
    """A request that came by.

    Attributes:
        method: its method.
        path: its path, with the query.
        sent: the bytes of its body.
        received: the bytes of its answer's body.
        rows: how many operations it has, where it is a transaction.
        target: DynamoDB's action; empty for others.
    """

    method: str
    path: str
    sent: int
    received: int
    rows: int
    target: str = ""

    @property
    def kind(self) -> str:
        """What it is: a transaction, a query, a row, or a new table; of DynamoDB, the action."""
        if self.target:
            return self.target
        if self.path.endswith("$batch"):
            return "transaction"
        if self.method == "POST" and "/Tables" in self.path:
            return "new table"
        return "row" if "RowKey=" in self.path.replace("%3D", "=") else "query"

    @property
    def rows_written(self) -> int:
        """How many rows it writes or deletes."""
        if self.target:
            return self.rows or int(self.target in ("PutItem", "DeleteItem"))
        return self.rows or int(self.method in ("POST", "PUT", "PATCH") and self.kind != "new table")


@dataclass
class _Rule:
    match: bytes
    times: int
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    lose: bool = False
    hold: threading.Event | None = None
    at: list[float] = field(default_factory=list)


class HttpProxy:
    """A proxy on loopback. A context manager."""

    def __init__(self, target_port: int) -> None:
        """Describe a proxy; `start` makes it listen."""
        self._target = target_port
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.held = 0
        """How many requests are kept back, or were and have no answer of the server yet."""
        self.requests: list[Request] = []
        """The requests that came by, those included that were answered here."""

    @property
    def port(self) -> int:
        """The port on 127.0.0.1 that clients connect to."""
        if self._server is None:
            raise RuntimeError("The proxy is not running.")
        return int(self._server.server_address[1])

    def answer(
        self,
        status: int,
        match: bytes = b"",
        *,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        code: str = "ServerBusy",
        body: str | None = None,
    ) -> list[float]:
        """Answer requests that hold these bytes instead of the server; returns when that is done."""
        text = body or f'{{"odata.error":{{"code":"{code}","message":{{"lang":"en-US","value":"{code}."}}}}}}'
        rule = _Rule(match, times, status=status, headers=headers or {}, body=text.encode())
        with self._lock:
            self._rules.append(rule)
        return rule.at

    def lose_answer(self, match: bytes = b"", *, times: int = 1) -> None:
        """Let the server do what it is asked, and cut the connection instead of passing the answer on."""
        with self._lock:
            self._rules.append(_Rule(match, times, lose=True))

    def hold(self, match: bytes, *, times: int = 1) -> None:
        """Keep requests back until `heal`."""
        with self._lock:
            self._rules.append(_Rule(match, times, hold=self._healed))

    def heal(self) -> None:
        """Pass everything on, and what was kept back."""
        with self._lock:
            self._rules.clear()
            self._healed.set()
            self._healed = threading.Event()

    def counts(self) -> dict[str, int]:
        """How many requests of each kind came by since the last call."""
        with self._lock:
            seen, self.requests = self.requests, []
        found: dict[str, int] = {}
        for request in seen:
            found[request.kind] = found.get(request.kind, 0) + 1
        return found

    def start(self) -> Self:
        """Listen on a free port."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

            def do_any(self) -> None:
                """Pass a request on."""
                proxy._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_MERGE = do_any

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no matter."""

        self._server = Server((LOOPBACK, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        """Stop. Calling this twice is fine."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        """Start the proxy unless it runs already."""
        return self if self._server is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        rule = self._rule_for(f"{handler.command} {handler.path}\n".encode() + body)
        if rule is not None and rule.hold is not None:
            with self._lock:
                self.held += 1
            try:
                rule.hold.wait(60)
                self._pass_on(handler, body, rule)
            finally:
                with self._lock:
                    self.held -= 1
            return
        self._pass_on(handler, body, rule)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes, rule: _Rule | None) -> None:
        if rule is not None and rule.status:
            self._note(handler, body, rule.body)
            _reply(handler, rule.status, {"Content-Type": "application/json", **rule.headers}, rule.body)
            return
        connection = http.client.HTTPConnection(LOOPBACK, self._target, timeout=60)
        with contextlib.closing(connection):
            headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP}
            connection.request(handler.command, handler.path, body or None, headers)
            answer = connection.getresponse()
            data = answer.read()
        self._note(handler, body, data)
        if rule is not None and rule.lose:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        _reply(handler, answer.status, kept, data)

    def _rule_for(self, request: bytes) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.match in request:
                    rule.at.append(time.monotonic())
                    rule.times -= 1
                    if rule.times <= 0:
                        self._rules.remove(rule)
                    return rule
        return None

    def _note(self, handler: BaseHTTPRequestHandler, body: bytes, answer: bytes) -> None:
        rows = body.count(b"\nContent-Type: application/http") if handler.path.endswith("$batch") else 0
        target = (handler.headers.get("X-Amz-Target") or "").rpartition(".")[2]
        if target == "TransactWriteItems":
            rows = len(json.loads(body)["TransactItems"])
        with self._lock:
            self.requests.append(Request(handler.command, handler.path, len(body), len(answer), rows, target))


def _reply(handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        if name.lower() != "content-length":
            handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if status != 204:
        handler.wfile.write(body)
