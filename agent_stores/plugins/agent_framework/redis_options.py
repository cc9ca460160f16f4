"""The arguments by which Agent Framework's Redis classes name a server, as ours take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.credentials import CredentialProvider

PREFIX = "chat_messages"
"""The framework's default for the beginning of all keys, which stands for ours."""


def redis_options(
    key_prefix: str,
    credential_provider: CredentialProvider | None,
    host: str | None,
    port: int,
    ssl: bool,
    username: str | None,
) -> dict[str, Any]:
    """The options of `RedisMessageLog`; the host's count with a credential provider only, as there."""
    options: dict[str, Any] = {"key_prefix": "agent" if key_prefix == PREFIX else key_prefix}
    if credential_provider is not None:
        server = {"host": host, "port": port, "ssl": ssl, "username": username}
        options |= {"credential_provider": credential_provider, **server}
    return options
