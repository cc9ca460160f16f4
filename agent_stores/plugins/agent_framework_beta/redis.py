"""`RedisChatMessageStore`: made as that of the beta's Redis package, over our stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent_stores import redis as ours
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from agent_stores.plugins.agent_framework_beta.store import ChatMessageStoreAdapter

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

_PREFIX = "chat_messages"


class RedisChatMessageStore(ChatMessageStoreAdapter):
    """`ChatMessageStoreAdapter` as the ``RedisChatMessageStore`` of agent-framework-redis is made.

    Its data is in our layout; ``agent-stores migrate`` copies what the framework's own store wrote.

    Args:
        redis_url: the server.
        credential_provider: gives user and password, or token, at each connection to `host`.
        host, port, ssl, username: the server, with a `credential_provider`.
        thread_id: the conversation's id; a random one by default.
        key_prefix: the beginning of all keys; the framework's default stands for ours, which is ``agent``.
        max_messages: the newest messages that the thread keeps.
        messages: what a new thread begins with.

    Raises:
        ArgumentError, ArgumentTypeError: for values that are not accepted.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        credential_provider: CredentialProvider | None = None,
        host: str | None = None,
        port: int = 6380,
        ssl: bool = True,
        username: str | None = None,
        thread_id: str | None = None,
        key_prefix: str = _PREFIX,
        max_messages: int | None = None,
        messages: Sequence[Any] | None = None,
    ) -> None:
        server: dict[str, Any] = {"credential_provider": credential_provider}
        if credential_provider is not None:
            server |= {"host": host, "port": port, "ssl": ssl, "username": username}
        store: ours.RedisChatMessageStore[Any] = ours.RedisChatMessageStore(
            redis_url,
            key_prefix="agent" if key_prefix == _PREFIX else key_prefix,
            thread_id=thread_id,
            max_messages=max_messages,
            messages=messages,
            codec=AgentFrameworkCodec(),
            **server,
        )
        super().__init__(store)
