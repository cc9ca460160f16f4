"""What one process has of everything: the event loop, the store, the model, and the runs that go on.

Streamlit runs a page's script anew on a thread of its own with every click; what is asynchronous, and what
has to outlive a script, is here. Windows on the same conversation see the same run.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import time
import uuid
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from agent_stores import (
    ChatMessage,
    OpenAIChatClient,
    OutcomeUnknownError,
    StoreUnavailableError,
    open_log,
)
from agent_stores.testing.model_server import ModelServer
from errors import explain
from memories import Memories, Noted
from runs import Run, answer
from settings import Settings
from threads import Threads

T = TypeVar("T")

_DEFAULT_MODEL = "gpt-5-mini"
_PATIENCE = 20.0  # seconds that a page waits for the store
_UNSEEN = 10.0  # seconds without a window after which a conversation is watched no more
_LOCAL_PAUSE = 0.04  # seconds between the words of the local test model, so that it can be seen to stream


@dataclass
class Watcher:
    """What counts the messages that are added to a conversation while windows show it.

    Attributes:
        count: of the messages.
        seen_at: when a window asked last, by the monotonic clock.
        task: which counts.
    """

    count: int = 0
    seen_at: float = 0.0
    task: asyncio.Task[None] | None = None


class Engine:
    """The application without its pages.

    Args:
        settings: where conversations are kept, and who answers.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.local_model: ModelServer | None = None
        if settings.is_default_store:
            settings.folder.mkdir(parents=True, exist_ok=True)
        self.log = open_log(settings.store_url)
        # The client has a default model only at OpenAI's own endpoint.
        default = None if os.environ.get("OPENAI_BASE_URL") else _DEFAULT_MODEL
        name = os.environ.get("OPENAI_MODEL") or default
        if settings.has_model:
            self._model = OpenAIChatClient()
            self._memories = Memories(settings, (name or _DEFAULT_MODEL, None, None))
        else:
            server = self.local_model = ModelServer(chunk_delay=_LOCAL_PAUSE).start()
            name = "test-model"
            self._model = OpenAIChatClient(name, api_key=server.api_key, base_url=server.base_url)
            self._memories = Memories(settings, (name, server.api_key, server.base_url))
        self.model_name = name or "no model: set OPENAI_MODEL"
        self._runs: dict[tuple[str, str], Run] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._watchers: dict[tuple[str, str], Watcher] = {}
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat-app", daemon=True)
        self._thread.start()
        # Import openai in the background: it takes seconds, which would delay the first answer.
        threading.Thread(target=importlib.import_module, args=("openai",), daemon=True).start()

    def call(
        self, work: Coroutine[Any, Any, T], *, patience: float = _PATIENCE, may_be_written: bool = False
    ) -> T:
        """Run a coroutine on the application's event loop, and wait for it.

        Raises:
            StoreUnavailableError: when it takes longer than a user waits.
            OutcomeUnknownError: the same, for what may have written something by then.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(patience)
        except LateError:
            future.cancel()
            kind = OutcomeUnknownError if may_be_written else StoreUnavailableError
            raise kind(f"no answer within {patience:g} seconds") from None

    def run_of(self, threads: Threads, thread_id: str) -> Run | None:
        """The run that goes on in a conversation, or the last one if it has something to say."""
        return self._runs.get((threads.tenant, thread_id))

    def added(self, threads: Threads, thread_id: str, after: int) -> int:
        """How many messages any process added to a conversation, as far as this one has watched it.

        Asks no store: all windows on a conversation share one watcher, which the first call starts after a
        position, and which ends when none has called for a while.
        """
        key = (threads.tenant, thread_id)
        with self._lock:
            watcher = self._watchers.get(key)
            if is_new := watcher is None:
                watcher = self._watchers[key] = Watcher()
            watcher.seen_at = time.monotonic()
        if is_new:
            self.call(self._begin_watching(key, watcher, threads, after))
        return watcher.count

    def ask(self, threads: Threads, thread_id: str, text: str, user_id: str) -> bool:
        """Send a message; False when an answer is being made already, and nothing was sent.

        The message gets its id here, once, so that sending it again after an error adds it once.
        """
        message = ChatMessage(
            "user", text, message_id=uuid.uuid4().hex, created_at=datetime.now(timezone.utc)
        )
        return self._start(threads, Run(thread_id, message), user_id)

    def ask_again(self, threads: Threads, thread_id: str, user_id: str) -> bool:
        """Send the message of a run that failed once more: the same message, with the same id."""
        failed = self.run_of(threads, thread_id)
        return failed is not None and self._start(threads, Run(thread_id, failed.message), user_id)

    def stop(self, threads: Threads, thread_id: str) -> None:
        """End the run of a conversation, and wait until the conversation is whole."""
        key = (threads.tenant, thread_id)

        async def cancel() -> None:
            task = self._tasks.get(key)
            if task is not None:
                task.cancel()
                await asyncio.wait([task], timeout=_PATIENCE)

        self.call(cancel(), patience=_PATIENCE + 5)

    def forget(self, threads: Threads, thread_id: str) -> None:
        """Show nothing more of a run that ended."""
        run = self.run_of(threads, thread_id)
        if run is not None and not run.is_running:
            self._runs.pop((threads.tenant, thread_id), None)

    def close(self) -> None:
        """Stop every run, close everything that was opened, and end the event loop."""

        async def finish() -> None:
            watching = (watcher.task for watcher in self._watchers.values())
            tasks = [*self._tasks.values(), *(task for task in watching if task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._memories.aclose()
            await self._loop.shutdown_asyncgens()
            with suppress(RuntimeError):  # at the very end of a process, where the log closes itself
                await self.log.aclose()

        if self._loop.is_closed():
            return
        self.call(finish(), patience=60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.local_model is not None:
            self.local_model.stop()

    def _start(self, threads: Threads, run: Run, user_id: str) -> bool:
        key = (threads.tenant, run.thread_id)
        with self._lock:
            known = self._runs.get(key)
            if known is not None and known.is_running:
                return False
            self._runs[key] = run
        try:
            self.call(self._begin(key, run, threads, user_id))
        except Exception as error:
            run.problem = explain(error)
            run.state = "failed"
        return True

    async def _begin_watching(
        self, key: tuple[str, str], watcher: Watcher, threads: Threads, after: int
    ) -> None:
        watcher.task = asyncio.create_task(self._watch(key, watcher, threads, after))

    async def _watch(self, key: tuple[str, str], watcher: Watcher, threads: Threads, after: int) -> None:
        async def count() -> None:
            async for _ in threads.store(key[1]).watch(after=after):
                watcher.count += 1

        counting = asyncio.create_task(count())
        try:
            while (left := watcher.seen_at + _UNSEEN - time.monotonic()) > 0:  # noqa: ASYNC110 - no event
                await asyncio.sleep(left)
        finally:
            with self._lock:
                del self._watchers[key]
            counting.cancel()
            await asyncio.wait([counting])

    async def _begin(self, key: tuple[str, str], run: Run, threads: Threads, user_id: str) -> None:
        task = self._tasks[key] = asyncio.create_task(self._run(run, threads, user_id))
        task.add_done_callback(lambda done: self._ended(key, run, done))

    async def _run(self, run: Run, threads: Threads, user_id: str) -> None:
        memory = await self._memories.of(user_id)
        noted = None if memory is None else Noted(memory, run.memories)
        await answer(run, threads, self._model, noted)

    def _ended(self, key: tuple[str, str], run: Run, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if run.is_running:  # it was stopped, or failed, before it began
            error = None if task.cancelled() else task.exception()
            run.problem = None if error is None else explain(error)
            run.state = "stopped" if error is None else "failed"
        if run.state == "stored" and self._runs.get(key) is run:
            del self._runs[key]  # it is in the conversation, and has nothing more to say
