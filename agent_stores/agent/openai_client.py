"""`OpenAIChatClient`: a model behind the Chat Completions API, over the ``openai`` package."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from typing_extensions import Self

from agent_stores import _checks as check
from agent_stores._concurrency import LoopLocal
from agent_stores.agent.chat_client import ChatResponse, ChatUpdate
from agent_stores.agent.openai_format import (
    from_openai_message,
    from_openai_usage,
    to_openai_messages,
    to_openai_tools,
)
from agent_stores.agent.tools import Tool
from agent_stores.errors import AgentRunError, ArgumentError, ArgumentTypeError, MissingDependencyError
from agent_stores.messages import ChatMessage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_DEFAULT_MODEL = "gpt-5-mini"
_OWN_FIELDS = ("messages", "stream", "tools")
_SHORTEST_SECRET = 8  # a shorter "key" is some placeholder, and would be found in any text


class OpenAIChatClient:
    """Talks to an endpoint of the Chat Completions API: OpenAI's, or any that is compatible.

    Nothing is read from the environment and no connection is made before the first request. Connections
    belong to the event loop that they were made in: the client has some for each. They are closed by `aclose`
    or at the end of ``async with``, else when their event loop ends; a closed client opens new ones when it
    is used again, so that several agents can share it.

    Args:
        model: the model's name; by default that in ``OPENAI_MODEL``, else ``gpt-5-mini`` at OpenAI's own
            endpoint. The option ``model`` of a call goes before it.
        api_key: the key; by default that in ``OPENAI_API_KEY``.
        base_url: the endpoint's URL; by default that in ``OPENAI_BASE_URL``, else OpenAI's.
        client: an ``openai.AsyncOpenAI`` to use instead, with its own key and URL. It is borrowed: never
            closed here.

    Raises:
        ArgumentError: for an empty or malformed value, a URL with a password or query in it, and when
            `client` is given together with `api_key` or `base_url`.
        ArgumentTypeError: for values of another type, or a synchronous client.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        client: AsyncOpenAI | None = None,
    ) -> None:
        self._model: str | None = None if model is None else check.name(model, "model")
        self._api_key = None if api_key is None else _key(api_key, "api_key")
        self._base_url = None if base_url is None else _url(base_url, "base_url")
        if client is not None and (api_key is not None or base_url is not None):
            raise ArgumentError("client must not be given together with api_key or base_url; it has its own")
        sdk = sys.modules.get("openai")
        if client is not None and sdk is not None and isinstance(client, sdk.OpenAI):
            raise ArgumentTypeError("client must be an AsyncOpenAI, got a synchronous OpenAI")
        self._given_client = client
        self._clients: LoopLocal[AsyncOpenAI] = LoopLocal(self._connect)

    async def get_response(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool[..., Any]] = (),
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> ChatResponse:
        """The model's whole answer.

        Args:
            messages: the conversation; see `to_openai_messages` for how it is sent.
            tools: what the model may call.
            conversation_id: not supported: the API keeps no conversations.
            options: further fields of the request, such as ``temperature`` or ``response_format``.

        Raises:
            ArgumentError: when no model or key is set, or an option is one that the client sets.
            MissingDependencyError: when the ``openai`` package is not installed.
            AgentRunError: when the answer holds nothing.
            openai.OpenAIError: when the request fails.
        """
        request = self._request(messages, tools, conversation_id, options)
        with self._key_hidden():
            client = await self._client()
            completion = await client.chat.completions.create(**request)
            answer: dict[str, Any] = completion.to_dict(mode="json", warnings=False)
            if not answer.get("choices"):
                raise AgentRunError(
                    f"the model's answer holds nothing: {answer.get('error') or 'no choices'}"
                )
            choice = answer["choices"][0]
            return ChatResponse(
                (from_openai_message(choice["message"]),),
                usage=from_openai_usage(answer.get("usage")),
                finish_reason=choice.get("finish_reason"),
            )

    async def get_streaming_response(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool[..., Any]] = (),
        conversation_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ChatUpdate]:
        """The model's answer in pieces; arguments and errors are those of `get_response`.

        Text comes as it is made, tool calls when they are complete, the usage last.

        Raises:
            AgentRunError: when the answer breaks off.
        """
        request = self._request(messages, tools, conversation_id, options)
        request.setdefault("stream_options", {"include_usage": True})
        with self._key_hidden():
            client = await self._client()
            calls = ToolCallAccumulator()
            finish_reason: str | None = None
            async with await client.chat.completions.create(**request, stream=True) as stream:
                async for chunk in stream:
                    data: dict[str, Any] = chunk.to_dict(mode="json", warnings=False)
                    if usage := from_openai_usage(data.get("usage")):
                        yield ChatUpdate(usage=usage)
                    for choice in (data.get("choices") or ())[:1]:
                        delta = choice.get("delta") or {}
                        finish_reason = choice.get("finish_reason") or finish_reason
                        calls.add(delta.pop("tool_calls", None) or ())
                        if parts := from_openai_message(delta).contents:
                            yield ChatUpdate(parts)
            if finish_reason is None:
                raise AgentRunError("the model's answer broke off: its stream ended without a finish reason")
            yield ChatUpdate(
                from_openai_message({"tool_calls": calls.whole}).contents, finish_reason=finish_reason
            )

    async def aclose(self) -> None:
        """Close the connections of this event loop; a client that was passed in stays open."""
        await self._clients.aclose()

    async def __aenter__(self) -> Self:
        self._clients.retain()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._clients.release()

    def __repr__(self) -> str:
        where = f", base_url={self._base_url!r}" if self._base_url else ""
        return f"OpenAIChatClient(model={self._model!r}{where})"

    def _request(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool[..., Any]],
        conversation_id: str | None,
        options: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        if conversation_id is not None:
            raise ArgumentError(
                "a service's conversation was given, and Chat Completions keeps none: use a thread with a "
                "message_store, or a chat client whose service keeps conversations"
            )
        request = dict(options or {})
        for name in _OWN_FIELDS:
            if name in request:
                raise ArgumentError(f"options must not contain {name!r}: the client sets it")
        if not request.get("model"):
            self._model = self._model or os.environ.get("OPENAI_MODEL") or None
            request["model"] = self._model or self._default_model()
        if tools:
            request["tools"] = to_openai_tools(tools)
        else:  # the API rejects settings for tools that are not there
            request.pop("tool_choice", None)
            request.pop("parallel_tool_calls", None)
        request["messages"] = to_openai_messages(messages)
        return request

    def _default_model(self) -> str:
        if self._given_client is not None or self._base_url or os.environ.get("OPENAI_BASE_URL"):
            raise ArgumentError(
                "model must be given for an endpoint other than OpenAI's: OpenAIChatClient(model=...), or "
                "the environment variable OPENAI_MODEL"
            )
        return _DEFAULT_MODEL

    async def _client(self) -> AsyncOpenAI:
        return self._given_client if self._given_client is not None else await self._clients.get()

    async def _connect(self, stack: AsyncExitStack) -> AsyncOpenAI:
        # The package takes seconds to import on a small machine, and certificates are read from disk.
        client = await asyncio.to_thread(self._make_client)
        stack.push_async_callback(client.close)
        return client

    def _make_client(self) -> AsyncOpenAI:
        try:
            import openai.resources.chat  # which the package itself leaves to the first request
        except ImportError:
            raise MissingDependencyError.of("openai", extra="openai", purpose="OpenAIChatClient") from None
        if self._api_key is None:
            found = os.environ.get("OPENAI_API_KEY")
            if not found:
                raise ArgumentError(
                    "no API key is set: give OpenAIChatClient(api_key=...), or set the environment variable "
                    "OPENAI_API_KEY (to any text, for a server that needs none)"
                )
            self._api_key = _key(found, "OPENAI_API_KEY")
        if self._base_url is None and (found := os.environ.get("OPENAI_BASE_URL")):
            self._base_url = _url(found, "OPENAI_BASE_URL")
        return openai.AsyncOpenAI(api_key=self._api_key, base_url=self._base_url)

    @contextmanager
    def _key_hidden(self) -> Iterator[None]:
        """Keep the key out of errors: some servers repeat it when they reject it."""
        try:
            yield
        except Exception as error:
            key = self._api_key or getattr(self._given_client, "api_key", None)
            if isinstance(key, str) and len(key) >= _SHORTEST_SECRET:
                _hide(error, key)
            raise


class ToolCallAccumulator:
    """Joins the pieces of streamed tool calls."""

    def __init__(self) -> None:
        self.whole: list[dict[str, Any]] = []
        self._by_index: dict[Any, dict[str, Any]] = {}

    def add(self, deltas: Sequence[Mapping[str, Any]]) -> None:
        """Add the pieces of one chunk."""
        for delta in deltas:
            index, call_id = delta.get("index"), delta.get("id")
            call = self._by_index.get(index)
            # Some servers number all parallel calls 0, or not at all: another id is another call.
            if call is None or (call_id and call["id"] and call_id != call["id"]):
                call = self._by_index[index] = {"id": None, "function": {"name": "", "arguments": ""}}
                self.whole.append(call)
            call["id"] = call["id"] or call_id
            function = delta.get("function") or {}
            call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""


def _key(value: Any, where: str) -> str:
    key = str(check.name(value, where)).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ArgumentError(f"{where} must be non-empty printable ASCII without spaces")
    return key


def _hide(error: BaseException, key: str) -> None:
    """Take a key out of an error, and out of those that led to it."""
    seen: list[BaseException] = []
    chain: BaseException | None = error
    while chain is not None and chain not in seen:
        seen.append(chain)
        if key in f"{chain} {chain!r} {getattr(chain, 'body', '')}":
            chain.args = tuple(arg.replace(key, "***") if isinstance(arg, str) else arg for arg in chain.args)
            for name in ("message", "body"):
                if hasattr(chain, name):
                    text = getattr(chain, name)
                    setattr(chain, name, text.replace(key, "***") if isinstance(text, str) else None)
        chain = chain.__cause__ or chain.__context__


def _url(value: Any, where: str) -> str:
    url = str(check.name(value, where))
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
        raise ArgumentError(f"{where} must be an http:// or https:// URL")
    if "@" in parts.netloc or parts.query:
        # The HTTP library writes the address of each request into its log.
        raise ArgumentError(
            f"{where} must not hold a user, password or query, which would be logged; pass them in client="
        )
    return url
