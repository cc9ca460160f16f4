"""A stand-in for mem0's platform on the loopback interface, as strict as its version 3 is documented to be.

It takes the five requests that the provider causes, refuses everything that they may not be, and keeps
memories by entity: what is stored with a user and an agent is found by either.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent_stores.testing.scripted_model import embed

ENTITIES = frozenset({"user_id", "agent_id", "app_id", "run_id"})
LIST = "/v3/memories/"
_DIMENSIONS = 256


class Mem0Platform:
    """The stand-in; a context manager that serves on a thread of its own.

    Attributes:
        requests: method, path and body of each request that came.
        refused: what was wrong with those that were refused, but for a wrong key.
        memories: what is remembered.
        delay: seconds before each answer but the first one, to the client's constructor.
        failures: statuses to answer with next, before anything else.
        ping_status: the status of the answer to the client's constructor.
        open: answers wait until it is set, as it is at first.
    """

    def __init__(self, api_key: str = "m0-planted-key") -> None:
        self.api_key = api_key
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.refused: list[str] = []
        self.memories: list[dict[str, Any]] = []
        self.delay = 0.0
        self.ping_delay = 0.0
        self.ping_status = 200
        self.failures: list[int] = []
        self.slow_entity: str | None = None
        self.open = threading.Event()
        self.open.set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        """What to give to the client as its host."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """The bodies that came for a path."""
        return [body for _, requested, body in self.requests if requested == path]

    def __enter__(self) -> Mem0Platform:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        self._stopping.wait(seconds)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Take a request whose headers are right."""
        with self._lock:
            self.requests.append((method, path, body))
            failure = self.failures.pop(0) if self.failures and path != "/v1/ping/" else None
        while not self.open.wait(0.02) and not self._stopping.is_set():
            pass
        if path == "/v1/ping/":
            self.pause(self.ping_delay)
            if self.ping_status != 200:
                return self.ping_status, {"detail": "no"}
            return 200, {
                "status": "ok",
                "org_id": "org",
                "project_id": "project",
                "user_email": "a@b.example",
            }
        self.pause(self.delay)
        if self.slow_entity is not None and self.slow_entity in body.get("filters", {}):
            self.pause(30)
        if failure is not None:
            return failure, {"detail": f"failure {failure}"}
        wrong = _wrong(path, body)
        if wrong is not None:
            self.refused.append(wrong)
            return 400, {"detail": wrong}
        if method == "DELETE":
            return self._delete(path.removesuffix("/").rpartition("/")[2])
        with self._lock:
            if path.partition("?")[0] == LIST:
                return 200, self._list(path, body)
            return 200, self._add(body) if path == "/v3/memories/add/" else self._search(body)

    def _add(self, body: Mapping[str, Any]) -> dict[str, Any]:
        for message in body["messages"]:
            if message["role"] == "user":
                self.remember(message["content"], **body["filters"])
        return {"message": "Memory processing has been queued", "status": "PENDING", "event_id": "e"}

    def _list(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = parse_qs(urlsplit(path).query)
        page, size = int(asked["page"][0]), int(asked["page_size"][0])
        found = [m for m in self.memories if all(m[name] == v for name, v in body["filters"].items())]
        start = (page - 1) * size
        return {"count": len(found), "next": None, "previous": None, "results": found[start : start + size]}

    def _delete(self, name: str) -> tuple[int, Any]:
        with self._lock:
            before = len(self.memories)
            self.memories = [memory for memory in self.memories if memory["id"] != name]
            done = len(self.memories) < before
        return (200, {"message": "Memory deleted successfully!"}) if done else (404, {"detail": "no memory"})

    def remember(self, text: str, **entities: str) -> str:
        """Keep a memory; returns its id."""
        name = hashlib.sha256(json.dumps([text, entities]).encode()).hexdigest()[:32]
        if all(memory["id"] != name for memory in self.memories):
            self.memories.append({"id": name, "memory": text, **dict.fromkeys(ENTITIES), **entities})
        return name

    def _search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        wanted = body["filters"]
        place = embed(body["query"], _DIMENSIONS)
        found = []
        for memory in self.memories:
            if all(value == "*" or memory[name] == value for name, value in wanted.items()):
                score = sum(a * b for a, b in zip(place, embed(memory["memory"], _DIMENSIONS), strict=True))
                found.append({**memory, "score": score, "created_at": time.time()})
        found = [m for m in found if m["score"] >= body.get("threshold", -1)]
        found.sort(key=lambda memory: -memory["score"])
        return {"results": found[: body.get("top_k", 10)]}


def _wrong(path: str, body: Mapping[str, Any]) -> str | None:
    """What is wrong with the body of a request."""
    if path.startswith("/v1/memories/"):
        return None if not body else f"{path}: unknown fields {sorted(body)}"
    path = path.partition("?")[0]
    allowed = {
        LIST: {"filters"},
        "/v3/memories/add/": {"messages", "filters", "metadata", "infer"},
        "/v3/memories/search/": {"query", "filters", "top_k", "threshold", "rerank"},
    }.get(path)
    if allowed is None:
        return f"unknown path {path}"
    if not set(body) <= allowed:
        return f"{path}: unknown fields {sorted(set(body) - allowed)}"
    filters = body.get("filters")
    if not isinstance(filters, dict) or not filters or not set(filters) <= ENTITIES:
        return f"{path}: filters must name entities"
    if not all(isinstance(value, str) and value for value in filters.values()):
        return f"{path}: ids must be text"
    if path == LIST:
        return None
    if path.endswith("search/"):
        query = body.get("query")
        return None if isinstance(query, str) and query.strip() else "the query is empty"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "there are no messages"
    for message in messages:
        if set(message) != {"role", "content"} or message["role"] not in ("user", "assistant"):
            return f"not a message: {sorted(message)}"
        if not isinstance(message["content"], str) or not message["content"].strip():
            return "a message has no text"
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, owner: Mem0Platform, *args: Any) -> None:
        self.owner = owner
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._serve({"/v1/ping/"})

    def do_POST(self) -> None:
        self._serve({LIST, "/v3/memories/add/", "/v3/memories/search/"})

    def do_DELETE(self) -> None:
        self._serve({"/v1/memories/"})

    def _serve(self, paths: set[str]) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        owner = self.owner
        if self.headers.get("Authorization") != f"Token {owner.api_key}":
            self._send(401, {"detail": "the key is wrong"})
            return
        user = hashlib.md5(owner.api_key.encode()).hexdigest()
        wrong = []
        path = self.path.partition("?")[0]
        if path not in paths and not (self.command == "DELETE" and path.startswith("/v1/memories/")):
            wrong.append(f"{self.command} {self.path} is unknown")
        if self.headers.get("Mem0-User-ID") != user:
            wrong.append("the header Mem0-User-ID is wrong")
        if self.command == "POST" and self.headers.get("Content-Type") != "application/json":
            wrong.append("the body is not said to be JSON")
        if wrong:
            owner.refused += wrong
            self._send(400, {"detail": "; ".join(wrong)})
            return
        self._send(*owner.answer(self.command, self.path, json.loads(raw) if raw else {}))

    def _send(self, status: int, payload: Any) -> None:
        data = json.dumps(payload).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except ConnectionError:  # the client gave up
            self.close_connection = True
