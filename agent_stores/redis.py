"""The Redis store: Redis and Valkey, alone, behind Sentinel, or in a Cluster. Needs the extra ``redis``."""

from agent_stores.stores.redis.log import RedisMessageLog
from agent_stores.stores.redis.store import RedisChatMessageStore

__all__ = ["RedisChatMessageStore", "RedisMessageLog"]
