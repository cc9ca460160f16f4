"""Which sources there are, and opening one by its URL: ``FRAMEWORK+URL``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, cast

from agent_stores.errors import ArgumentError
from agent_stores.importers.source import Source
from agent_stores.urls import is_azure_url

_REDIS = ("redis", "rediss", "valkey", "valkeys", "unix")
_SQL = ("sqlite", "postgresql", "postgres", "mariadb", "mysql")


class Layout(NamedTuple):
    """A layout that can be read.

    Attributes:
        framework: what stands before the first ``+``.
        schemes: what its URLs begin with.
        module: where its source is made.
        function: makes it of a URL and keyword arguments, all of them text.
        what: what it is, in a line.
    """

    framework: str
    schemes: tuple[str, ...]
    module: str
    function: str
    what: str


LAYOUTS = (
    Layout("langchain", _REDIS, "langchain", "langchain_list", "LangChain's Redis lists"),
    Layout("langchain-js", _REDIS, "langchain", "langchain_js_list", "LangChain.js's Redis lists"),
    Layout("langchain-redis", _REDIS, "langchain_redis", "LangChainRedisDocuments", "langchain-redis's JSON"),
    Layout(
        "langchain",
        ("dynamodb",),
        "langchain_dynamodb",
        "LangChainDynamoDBTable",
        "LangChain's DynamoDB table",
    ),
    Layout("llama-index", _REDIS, "llama_index_redis", "llama_index_list", "LlamaIndex's Redis lists"),
    Layout(
        "llama-index",
        ("azure-tables",),
        "llama_index_azure",
        "LlamaIndexAzureTable",
        "LlamaIndex's Azure table",
    ),
    Layout(
        "agent-framework", _REDIS, "agent_framework", "agent_framework_list", "Agent Framework's Redis lists"
    ),
    Layout(
        "openai-agents", _SQL, "openai_agents_sql", "OpenAIAgentsTables", "the OpenAI Agents SDK's tables"
    ),
    Layout("openai-agents", _REDIS, "openai_agents_redis", "openai_agents_redis", "its RedisSession's lists"),
    Layout("google-adk", _SQL, "google_adk", "ADKSessions", "Google ADK's tables"),
    Layout("langgraph", _SQL[:3], "langgraph", "LangGraphCheckpoints", "LangGraph's checkpoints"),
    Layout("pydantic-ai", _SQL[:1], "pydantic_ai", "PydanticAIHarness", "Pydantic AI harness' file"),
    Layout("strands", ("file",), "strands", "StrandsFiles", "Strands' files"),
)

ACCEPTED = ", ".join(f"{layout.framework}+{layout.schemes[0]}://…" for layout in LAYOUTS)


def open_source(url: str, options: Mapping[str, str] | None = None) -> Source:
    """The source of a URL; nothing connects yet.

    Args:
        url: the framework, a ``+``, and where its data is, such as ``langchain+redis://host:6379/0`` or
            ``openai-agents+sqlite:///chats.db``.
        options: what the framework was told and did not choose by itself, such as ``key_prefix``.

    Raises:
        ArgumentError: when the layout or an option is not known; never repeats the URL.
        MissingDependencyError: when a package that is needed is not installed.
    """
    framework, plus, rest = url.partition("+")
    names = sorted({layout.framework for layout in LAYOUTS})
    if not plus or framework not in names:
        # It may be a URL with a password in it: only what cannot be one is repeated.
        shown = f"{framework[:40]!r}" if plus and framework.replace("-", "").isalnum() else "another text"
        raise ArgumentError(f"the source must be one of {', '.join(names)}, a +, and a URL, got {shown}")
    scheme = rest.partition("://")[0].partition("+")[0] if "://" in rest else "path"
    if is_azure_url(rest):
        scheme = "azure-tables"
    for layout in LAYOUTS:
        paths = ("path",) if {"sqlite", "file"} & set(layout.schemes) else ()
        if layout.framework == framework and scheme in (*layout.schemes, *paths):
            make = getattr(import_module(f"agent_stores.importers.{layout.module}"), layout.function)
            return cast("Source", make(rest, **_accepted(layout, make, options or {})))
    known = [layout.schemes for layout in LAYOUTS if layout.framework == framework]
    raise ArgumentError(
        f"the source's URL must begin with one of {', '.join(f'{schemes[0]}://…' for schemes in known)}"
    )


def _accepted(layout: Layout, make: Callable[..., Any], options: Mapping[str, str]) -> dict[str, str]:
    accepted = [
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in accepted:
            raise ArgumentError(
                f"{name[:40]!r} is not an option of {layout.what}; its options are {', '.join(accepted)}"
            )
    return dict(options)
