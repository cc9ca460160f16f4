"""Long-term memory by mem0, and which memories an answer used. Without a configuration there is none."""

from __future__ import annotations

import html
import importlib
import os
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from agent_stores import ChatMessage, Context, ContextProvider
from agent_stores.mem0 import Mem0Provider
from settings import Settings

_APPLICATION = "chat_app"


class Memories:
    """mem0 for all users: a provider each, made at its first use.

    Args:
        settings: which mem0 is used, if any.
        model: name, key and URL of the model for mem0's open-source package.
    """

    def __init__(self, settings: Settings, model: tuple[str, str | None, str | None]) -> None:
        self._settings = settings
        self._model = model
        self._stack = AsyncExitStack()
        self._providers: dict[str, Mem0Provider] = {}
        self._local: Any = None
        if settings.memory == "local":
            os.environ.setdefault("MEM0_DIR", str(settings.folder / "mem0"))  # read when mem0 is imported
        if settings.memory:  # importing mem0 takes seconds, which the first answer is not to wait for
            threading.Thread(target=importlib.import_module, args=("mem0",), daemon=True).start()

    async def of(self, user_id: str) -> Mem0Provider | None:
        """The memory of a user; None where none is configured."""
        if not self._settings.memory:
            return None
        known = self._providers.get(user_id)
        if known is None:
            known = self._providers[user_id] = self._make(user_id)
            await self._stack.enter_async_context(known)
        return known

    async def aclose(self) -> None:
        """Store what waits, and close everything."""
        await self._stack.aclose()

    def _make(self, user_id: str) -> Mem0Provider:
        if self._settings.memory == "platform":
            return Mem0Provider(
                host=self._settings.memory_host,
                user_id=user_id,
                application_id=_APPLICATION,
                background_writes=True,
            )
        # mem0's open-source package accepts no white space in ids.
        return Mem0Provider(
            mem0_client=self._in_this_process(),
            user_id=user_id.encode().hex(),
            application_id=_APPLICATION,
            background_writes=True,
            timeout=60,
        )

    def _in_this_process(self) -> Any:
        if self._local is None:
            folder = self._settings.folder / "mem0"
            folder.mkdir(parents=True, exist_ok=True)
            from mem0 import AsyncMemory

            name, key, url = self._model
            service = {"api_key": key, "openai_base_url": url}
            config: dict[str, Any] = {
                "llm": {"provider": "openai", "config": {"model": name, **service}},
                "embedder": {
                    "provider": "openai",
                    "config": {"model": "text-embedding-3-small", **service},
                },
                "vector_store": {
                    "provider": "qdrant",
                    "config": {"path": str(folder / "vectors"), "on_disk": True},
                },
                "history_db_path": str(folder / "history.db"),
            }
            memory = self._local = AsyncMemory.from_config(config)
            self._stack.callback(memory.close)
            self._stack.callback(memory.vector_store.client.close)
        return self._local


class Noted(ContextProvider):
    """Passes everything on to a provider, and notes the memories that it brought.

    Args:
        provider: the user's memory.
        found: where the memories are put.
    """

    def __init__(self, provider: ContextProvider, found: list[str]) -> None:
        self._provider = provider
        self._found = found

    async def thread_created(self, thread_id: str | None) -> None:
        """See `ContextProvider`."""
        await self._provider.thread_created(thread_id)

    async def invoking(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Context:
        """See `ContextProvider`."""
        context = await self._provider.invoking(messages, **kwargs)
        for message in context.messages:
            lines = message.text.splitlines()
            self._found += [html.unescape(line[2:]) for line in lines if line.startswith("- ")]
        return context

    async def invoked(
        self,
        request_messages: Sequence[ChatMessage],
        response_messages: Sequence[ChatMessage] | None = None,
        invoke_exception: Exception | None = None,
        **kwargs: Any,
    ) -> None:
        """See `ContextProvider`."""
        await self._provider.invoked(request_messages, response_messages, invoke_exception, **kwargs)
