"""What is compared with what."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = ("redis", "sqlite", "postgresql", "mariadb", "azure", "dynamodb")

LONGEST = {"azure": 10_000, "dynamodb": 10_000}
"""The longest threads that a backend is measured with: their emulators look through all rows of a table."""


@dataclass(frozen=True)
class Spec:
    """A candidate.

    Attributes:
        name: of the candidate in its environment's module.
        environment: where it lives: a list of packages in peers/, and a folder of .make/bench.
        module: of candidates/.
        label: what tables call it.
        group: candidates of a group are compared with its first, the lower bound.
    """

    name: str
    environment: str
    module: str
    label: str
    group: str = ""

    @property
    def key(self) -> str:
        """Names it in one run."""
        return f"{self.environment}/{self.name}"


def _own(name: str, label: str, environment: str = "own", group: str = "") -> Spec:
    return Spec(name, environment, "own", label, group)


SPECS: dict[str, list[Spec]] = {
    "redis": [
        _own("raw-redis", "raw: MULTI RPUSH LTRIM, LRANGE, json"),
        _own("raw-redis-msgspec", "raw with msgspec"),
        _own("ours-redis-limited", "agent-stores: max_messages, ttl"),
        _own("ours-redis", "agent-stores"),
        _own("ours-redis-encrypted", "agent-stores, encrypted"),
        Spec("openai-redis", "openai-agents", "openai_agents", "OpenAI Agents RedisSession, ttl"),
        Spec("llama-redis", "llama-index", "llama_index", "LlamaIndex RedisChatStore"),
        Spec("framework-redis", "agent-framework", "agent_framework", "RedisHistoryProvider"),
        Spec(
            "framework-redis-limited",
            "agent-framework",
            "agent_framework",
            "RedisHistoryProvider, max_messages",
        ),
        Spec(
            "beta-redis",
            "agent-framework-beta",
            "agent_framework_beta",
            "beta RedisChatMessageStore, max_messages",
        ),
        _own("raw-redis-sync", "raw, synchronous", group="sync"),
        _own("ours-redis-sync", "agent-stores, synchronous view: max_messages, ttl", group="sync"),
        Spec("langchain-redis", "langchain", "langchain", "LangChain RedisChatMessageHistory, ttl", "sync"),
        _own("raw-redis", "raw, redis-py 7", "own-redis7", "redis-py 7"),
        _own("ours-redis-limited", "agent-stores: max_messages, ttl, redis-py 7", "own-redis7", "redis-py 7"),
    ],
    "sqlite": [
        _own("raw-sqlite", "raw: sqlite3 on a worker thread"),
        _own("contract-sqlite", "raw with counters and ids"),
        _own("ours-sqlite", "agent-stores"),
        _own("ours-sqlite-encrypted", "agent-stores, encrypted"),
        _own("ours-sqlite-limited", "agent-stores: max_messages, ttl"),
        Spec("openai-sqlite", "openai-agents", "openai_agents", "OpenAI Agents SQLiteSession"),
        Spec("openai-alchemy-sqlite", "openai-agents", "openai_agents", "OpenAI Agents SQLAlchemySession"),
        Spec("llama-alchemy-sqlite", "llama-index", "llama_index", "LlamaIndex SQLAlchemyChatStore"),
        _own("raw-sqlite-sync", "raw, synchronous", group="sync"),
        _own("contract-sqlite-sync", "raw with counters and ids, synchronous", group="sync"),
        _own("ours-sqlite-sync", "agent-stores, synchronous view", group="sync"),
    ],
    "mariadb": [
        _own("raw-mariadb", "raw: PyMySQL on a worker thread"),
        _own("ours-mariadb", "agent-stores"),
        _own("ours-mariadb-limited", "agent-stores: max_messages, ttl"),
    ],
    "postgresql": [
        _own("raw-postgresql", "raw: psycopg, asynchronous"),
        _own("ours-postgresql", "agent-stores, psycopg"),
        _own("ours-postgresql-encrypted", "agent-stores, psycopg, encrypted"),
        _own("ours-postgresql-limited", "agent-stores, psycopg: max_messages, ttl"),
        _own("ours-postgresql-asyncpg", "agent-stores, asyncpg"),
        Spec(
            "openai-alchemy-postgresql",
            "openai-agents",
            "openai_agents",
            "OpenAI Agents SQLAlchemySession, asyncpg",
        ),
        Spec(
            "llama-alchemy-postgresql",
            "llama-index",
            "llama_index",
            "LlamaIndex SQLAlchemyChatStore, asyncpg",
        ),
    ],
    "azure": [
        Spec("raw-azure", "own", "azure_tables", "raw: one transaction of the same rows, one query"),
        Spec("raw-azure-without-ids", "own", "azure_tables", "raw without rows for ids"),
        Spec("ours-azure", "own", "azure_tables", "agent-stores"),
        Spec("ours-azure-limited", "own", "azure_tables", "agent-stores: max_messages, ttl"),
        Spec("llama-azure", "llama-index-azure", "llama_index_azure", "LlamaIndex AzureChatStore"),
    ],
    "dynamodb": [
        Spec("raw-dynamodb", "own", "dynamodb", "raw: one transaction of the same rows, one query"),
        Spec("ours-dynamodb", "own", "dynamodb", "agent-stores"),
        Spec("ours-dynamodb-limited", "own", "dynamodb", "agent-stores: max_messages, ttl"),
    ],
}
