"""Providers with the names and constructors of the framework's own, over our stores.

Their data is in our layout; ``agent-stores migrate`` copies what the framework's own providers wrote.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from agent_stores.errors import ArgumentError
from agent_stores.plugins.agent_framework.history import AgentStoresHistoryProvider
from agent_stores.plugins.thread_ids import escape
from agent_stores.store_options import choice

if TYPE_CHECKING:
    import redis.asyncio as aioredis
    from redis.credentials import CredentialProvider

PREFIX = "chat_messages"
"""The framework's default for the beginning of all keys."""

KeyFormat = Literal["scoped", "legacy"]


class RedisHistoryProvider(AgentStoresHistoryProvider):
    """`AgentStoresHistoryProvider` as agent-framework-redis' ``RedisHistoryProvider`` is made.

    With the key format ``"scoped"``, the threads' tenant is
    ``{tenant_id}/{application_id}/{agent_id}/{source_id}``, with ``%`` and ``/`` escaped in each, and nothing
    for one that is None. With ``"legacy"``, they have no tenant.

    Args:
        source_id: names this provider among those of its agent.
        redis_url: the server.
        credential_provider: gives user and password, or token, at each connection to `host`.
        host, port, ssl, username: the server, with a `credential_provider`.
        redis_client: an asynchronous client of the caller's, which stays open.
        key_prefix: the beginning of all keys; the framework's default stands for ours, which is ``agent``.
        tenant_id, application_id, agent_id: whose the conversations are; see above.
        key_format: ``"legacy"`` is deprecated.
        max_messages: the newest messages that a session keeps.
        load_messages, store_outputs, store_inputs, store_context_messages, store_context_from: see
            `AgentStoresHistoryProvider`.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    DEFAULT_SOURCE_ID = "redis_memory"

    def __init__(
        self,
        source_id: str = DEFAULT_SOURCE_ID,
        redis_url: str | None = None,
        credential_provider: CredentialProvider | None = None,
        host: str | None = None,
        port: int = 6380,
        ssl: bool = True,
        username: str | None = None,
        *,
        redis_client: aioredis.Redis | None = None,
        key_prefix: str = PREFIX,
        tenant_id: str | None = None,
        application_id: str | None = None,
        agent_id: str | None = None,
        key_format: KeyFormat = "scoped",
        max_messages: int | None = None,
        load_messages: bool = True,
        store_outputs: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
    ) -> None:
        from agent_stores.redis import RedisMessageLog

        scope = (tenant_id, application_id, agent_id)
        if choice("key_format", key_format, KeyFormat) == "legacy":
            if scope != (None, None, None):
                raise ArgumentError(
                    "tenant_id, application_id and agent_id must be None for the legacy format"
                )
            warnings.warn("key_format='legacy' is deprecated: use 'scoped'", DeprecationWarning, stacklevel=2)
        elif not application_id or "" in scope:
            raise ArgumentError("application_id must be given, and no id may be empty, for the scoped format")
        names = [escape(name or "", "/") for name in (*scope, source_id)]
        server: dict[str, Any] = {"redis_client": redis_client, "credential_provider": credential_provider}
        if credential_provider is not None:
            server |= {"host": host, "port": port, "ssl": ssl, "username": username}
        prefix = "agent" if key_prefix == PREFIX else key_prefix
        log = RedisMessageLog(redis_url, key_prefix=prefix, **server)
        super().__init__(
            log,
            source_id=source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_outputs=store_outputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            tenant=None if key_format == "legacy" else "/".join(names),
            max_messages=max_messages,
        )
        self._opened.own(log)
