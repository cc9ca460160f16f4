"""The registry of source formats; sources are opened by URL: ``FRAMEWORK+URL``."""

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


class SourceFormat(NamedTuple):
    """A storage format of another library that can be imported.

    Attributes:
        framework: the text before the first ``+`` of the URL.
        schemes: the accepted URL schemes.
        module: the module of the factory.
        function: the factory; takes a URL and keyword arguments of type str.
        description: one line, for messages.
    """

    framework: str
    schemes: tuple[str, ...]
    module: str
    function: str
    description: str


SOURCE_FORMATS = (
    SourceFormat("langchain", _REDIS, "langchain", "langchain_list", "LangChain's Redis lists"),
    SourceFormat("langchain-js", _REDIS, "langchain", "langchain_js_list", "LangChain.js's Redis lists"),
    SourceFormat(
        "langchain-redis", _REDIS, "langchain_redis", "LangChainRedisDocuments", "langchain-redis's JSON"
    ),
    SourceFormat(
        "langchain",
        ("dynamodb",),
        "langchain_dynamodb",
        "LangChainDynamoDBTable",
        "LangChain's DynamoDB table",
    ),
    SourceFormat("llama-index", _REDIS, "llama_index_redis", "llama_index_list", "LlamaIndex's Redis lists"),
    SourceFormat(
        "llama-index",
        ("azure-tables",),
        "llama_index_azure",
        "LlamaIndexAzureTable",
        "LlamaIndex's Azure table",
    ),
    SourceFormat(
        "agent-framework", _REDIS, "agent_framework", "agent_framework_list", "Agent Framework's Redis lists"
    ),
    SourceFormat(
        "openai-agents", _SQL, "openai_agents_sql", "OpenAIAgentsTables", "the OpenAI Agents SDK's tables"
    ),
    SourceFormat(
        "openai-agents", _REDIS, "openai_agents_redis", "openai_agents_redis", "its RedisSession's lists"
    ),
    SourceFormat("google-adk", _SQL, "google_adk", "ADKSessions", "Google ADK's tables"),
    SourceFormat("langgraph", _SQL[:3], "langgraph", "LangGraphCheckpoints", "LangGraph's checkpoints"),
    SourceFormat("pydantic-ai", _SQL[:1], "pydantic_ai", "PydanticAIHarness", "Pydantic AI harness' file"),
    SourceFormat("strands", ("file",), "strands", "StrandsFiles", "Strands' files"),
)

SOURCE_URLS = ", ".join(f"{layout.framework}+{layout.schemes[0]}://…" for layout in SOURCE_FORMATS)


def open_source(url: str, options: Mapping[str, str] | None = None) -> Source:
    """Open the source of a URL; it connects on first use.

    Args:
        url: the framework, a ``+`` and the URL of its data, such as ``langchain+redis://host:6379/0`` or
            ``openai-agents+sqlite:///chats.db``.
        options: the settings that the framework was configured with, such as ``key_prefix``.

    Raises:
        ArgumentError: when the format or an option is unknown; the error never contains the URL.
        MissingDependencyError: when a required package is not installed.
    """
    framework, plus, rest = url.partition("+")
    names = sorted({layout.framework for layout in SOURCE_FORMATS})
    if not plus or framework not in names:
        # It may be a URL with a password in it: only what cannot be one is repeated.
        shown = f"{framework[:40]!r}" if plus and framework.replace("-", "").isalnum() else "another text"
        raise ArgumentError(f"the source must be one of {', '.join(names)}, a +, and a URL, got {shown}")
    scheme = rest.partition("://")[0].partition("+")[0] if "://" in rest else "path"
    if is_azure_url(rest):
        scheme = "azure-tables"
    for layout in SOURCE_FORMATS:
        paths = ("path",) if {"sqlite", "file"} & set(layout.schemes) else ()
        if layout.framework == framework and scheme in (*layout.schemes, *paths):
            make = getattr(import_module(f"agent_stores.importers.{layout.module}"), layout.function)
            return cast("Source", make(rest, **_accepted(layout, make, options or {})))
    known = [layout.schemes for layout in SOURCE_FORMATS if layout.framework == framework]
    raise ArgumentError(
        f"the source's URL must begin with one of {', '.join(f'{schemes[0]}://…' for schemes in known)}"
    )


def _accepted(layout: SourceFormat, make: Callable[..., Any], options: Mapping[str, str]) -> dict[str, str]:
    accepted = [
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in accepted:
            raise ArgumentError(
                f"options of {layout.description} must be among {', '.join(accepted)}, got {name[:40]!r}"
            )
    return dict(options)
