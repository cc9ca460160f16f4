"""A deterministic model behind an OpenAI-compatible HTTP endpoint on the loopback interface.

It serves chat completions (whole and streamed), embeddings and the list of models, refuses conversations
that the real API would refuse, and can be told to fail. `python -m agent_stores.testing.model_server` runs it
alone.
"""

# pyright: reportPrivateUsage=false
# The classes of this module are one machine, and use each other's internals.

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import socket
import socketserver
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast

from agent_stores.testing.internal_prompts import INTERNAL_PROMPT_RULES
from agent_stores.testing.model_protocol import (
    RefusedError,
    check_completion,
    completion,
    completion_chunks,
    embedding_response,
    parse_request,
)
from agent_stores.testing.scripted_model import RULES, Rule, answer

__all__ = ["ModelServer", "main"]

_MODELS = ("test-model", "text-embedding-3-small")


class ModelServer:
    """An OpenAI-compatible server for tests and demonstrations, on a thread of its own.

    Use it as a context manager, or call `start` and `stop`. Any API key is accepted, as long as there is one.
    Nothing listens before `start`.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 takes a free one at each start.
        rules: How the model answers, instead of `INTERNAL_PROMPT_RULES` and `RULES`.
        delay: Seconds to wait before each answer; may be changed at any time.
        chunk_delay: Seconds to wait before each chunk of a stream; may be changed at any time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        rules: Sequence[Rule] | None = None,
        delay: float = 0.0,
        chunk_delay: float = 0.0,
    ) -> None:
        self.api_key = "test-key"
        self.delay = delay
        self.chunk_delay = chunk_delay
        self._address = (host, port)
        self._rules = (*INTERNAL_PROMPT_RULES, *RULES) if rules is None else rules
        self._http: _Http | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._requests: list[dict[str, Any]] = []
        self._failures: deque[_Failure] = deque()
        self._call_numbers = itertools.count(1)

    @property
    def base_url(self) -> str:
        """The URL to give to a client as its `base_url`."""
        if self._http is None:
            msg = "the model server is not running: call start(), or use it in a with statement"
            raise RuntimeError(msg)
        return f"http://{self._address[0]}:{self._http.server_port}/v1"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """A copy of the bodies received so far: of chats and embeddings, refused and failed ones too."""
        with self._lock:
            return list(self._requests)

    def fail_next(
        self,
        status: int = 500,
        message: str = "The server had an error.",
        times: int = 1,
        after_chunks: int | None = None,
    ) -> None:
        """Make the next requests for a completion or for embeddings fail, each once.

        The openai client retries by itself: count its retries in `times`, or set its `max_retries` to 0.

        Args:
            status: The HTTP status to answer with.
            message: The message of the error.
            times: How many requests fail.
            after_chunks: Where the request asks for a stream, answer it, but drop the connection after so
                many chunks. Other requests fail with `status`.
        """
        with self._lock:
            self._failures.extend([_Failure(status, message, after_chunks)] * times)

    def reset(self) -> None:
        """Forget the recorded requests and the failures still to come."""
        with self._lock:
            self._requests.clear()
            self._failures.clear()

    def start(self) -> ModelServer:
        """Listen and serve on a thread of its own; does nothing when it already runs."""
        if self._http is None:
            self._stopping.clear()
            self._http = _Http(self._address, partial(_Handler, self))
            serve = partial(self._http.serve_forever, poll_interval=0.02)
            self._thread = threading.Thread(target=serve, name="model-server", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection and stop listening; does nothing when it does not run."""
        if self._http is None or self._thread is None:
            return
        self._stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.close_connections()
        self._http.server_close()
        self._http = self._thread = None

    def __enter__(self) -> ModelServer:
        """Start the server."""
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        if seconds > 0 and self._stopping.wait(seconds):
            raise ConnectionAbortedError

    def _admit(self, request: dict[str, Any]) -> _Failure | None:
        """Record a request, and return the failure that it is due."""
        with self._lock:
            self._requests.append(request)
            failure = self._failures.popleft() if self._failures else None
        self._pause(self.delay)
        return failure

    def _complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request for a chat completion."""
        check_completion(request)
        try:
            reply = answer(request, self._rules)
        except Exception as error:
            raise RefusedError(f"A rule of the model failed: {error!r}", 500) from error
        with self._lock:
            call_ids = [f"call_{next(self._call_numbers):06}" for _ in reply.calls]
        return completion(request, reply, call_ids)


@dataclass(frozen=True)
class _Failure:
    """A failure to come."""

    status: int
    message: str
    after_chunks: int | None


class _Http(ThreadingHTTPServer):
    """The listening socket, with a list of the connections that it accepted."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._connections: set[object] = set()
        self._changed = threading.Condition()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's full name, which may wait for a name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = cast("tuple[str, int]", self.socket.getsockname()[:2])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a new thread."""
        with self._changed:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that its thread has done with."""
        super().shutdown_request(request)
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def close_connections(self, timeout: float = 5.0) -> None:
        """Cut all connections, and wait until their threads have let them go."""
        with self._changed:
            for connection in self._connections:
                with suppress(OSError):
                    cast("socket.socket", connection).shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._connections, timeout)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a client went away; report anything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, and answers them as its `ModelServer` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits for the client's delayed acknowledgement

    def __init__(self, owner: ModelServer, *args: Any) -> None:
        self.owner = owner
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer a GET request."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a POST request."""
        self._serve()

    def _serve(self) -> None:
        try:
            body = self._read()
            route = f"{self.command} {self.path.split('?')[0].rstrip('/')}"
            handle = {
                "GET /v1/models": self._models,
                "POST /v1/chat/completions": self._chat,
                "POST /v1/embeddings": self._embeddings,
            }.get(route)
            if handle is None:
                raise RefusedError(f"Unknown request: {route}", 404, code="unknown_url")
            if not re.fullmatch(r"Bearer \S+", self.headers.get("Authorization", "")):
                raise RefusedError("No API key was given.", 401, code="invalid_api_key")
            handle(body)
        except RefusedError as error:
            self._send(error.body, error.status)

    def _read(self) -> bytes:
        """Read the whole body, so that the next request on the connection begins where it should."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RefusedError("The request must have a valid Content-Length.")
        return self.rfile.read(int(length))

    def _send(self, payload: Mapping[str, Any], status: int = 200) -> None:
        data = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _models(self, _body: bytes) -> None:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "agent-stores"} for name in _MODELS
        ]
        self._send({"object": "list", "data": models})

    def _chat(self, body: bytes) -> None:
        request = parse_request(body)
        failure = self.owner._admit(request)
        streamed = request.get("stream") is True
        if failure and not (streamed and failure.after_chunks is not None):
            raise RefusedError(failure.message, failure.status)
        completion = self.owner._complete(request)
        if not streamed:
            self._send(completion)
            return
        options = request.get("stream_options")
        with_usage = (
            isinstance(options, dict) and cast("dict[str, Any]", options).get("include_usage") is True
        )
        self._stream(completion_chunks(completion, with_usage), failure.after_chunks if failure else None)

    def _stream(self, chunks: Iterator[Mapping[str, Any]], cut_after: int | None) -> None:
        """Send server-sent events; the chunked encoding lets a client see that a stream was cut."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = itertools.chain(map(json.dumps, chunks), ["[DONE]"])
        for number, event in enumerate(events):
            if number == cut_after:
                self.close_connection = True
                return
            self.owner._pause(self.owner.chunk_delay)
            data = f"data: {event}\n\n".encode()
            self.wfile.write(b"%X\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _embeddings(self, body: bytes) -> None:
        request = parse_request(body)
        if failure := self.owner._admit(request):
            raise RefusedError(failure.message, failure.status)
        self._send(embedding_response(request))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted (Ctrl-C or SIGTERM); the first line of the output is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m agent_stores.testing.model_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    options = parser.parse_args(arguments)
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with ModelServer(options.host, options.port) as server:
        print(server.base_url, flush=True)
        while not ended.wait(0.2):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
