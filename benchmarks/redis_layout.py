"""Which Redis structure holds a thread best: list, stream, hash or sorted set; and what ours costs.

Each candidate is one script that appends a turn (two messages of 200 and 800 characters, with ids that are
checked, trimmed to the thread's length), and one that reads the newest 20. The server's own count of
microseconds per call (INFO commandstats) leaves the client and the network out.

    python benchmarks/redis_layout.py [--largest 1000000] [--server valkey9|redis62]

docs/redis.md shows the table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import redis.asyncio as aioredis

from agent_stores import ChatMessage
from agent_stores.backend import Row, ThreadKey, TimeToLive
from agent_stores.backends.redis.layout import thread_keys
from agent_stores.message_rows import make_rows
from agent_stores.redis import RedisMessageLog
from tests.servers.redis import RedisServer

ROUNDS, CALLS = 5, 200
BATCH = 2000

# KEYS: entries, ids. ARGV: the number of messages to keep, then ids and bodies in turn.
COMMON = """
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
local keep = tonumber(ARGV[1])
for n = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[n]) == 0 then
    last = last + 1
    redis.call('HSET', KEYS[2], ARGV[n], last)
    PUSH
  end
end
redis.call('SET', KEYS[3], last)
"""
CANDIDATES = {
    "list": (
        COMMON.replace("PUSH", "redis.call('RPUSH', KEYS[1], ARGV[n] .. ' ' .. ARGV[n + 1])")
        + """
local over = redis.call('LLEN', KEYS[1]) - keep
if over > 0 then
  for _, old in ipairs(redis.call('LRANGE', KEYS[1], 0, over - 1)) do
    redis.call('HDEL', KEYS[2], string.match(old, '^%S+'))
  end
  redis.call('LTRIM', KEYS[1], over, -1)
end
""",
        "return redis.call('LRANGE', KEYS[1], -20, -1)",
    ),
    "stream": (
        COMMON.replace("PUSH", "redis.call('XADD', KEYS[1], last .. '-0', 'i', ARGV[n], 'b', ARGV[n + 1])")
        + """
local over = redis.call('XLEN', KEYS[1]) - keep
if over > 0 then
  for _, old in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', over)) do
    redis.call('HDEL', KEYS[2], old[2][2])
  end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', keep)
end
""",
        "return redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 20)",
    ),
    "hash": (
        COMMON.replace("PUSH", "redis.call('HSET', KEYS[1], last, ARGV[n] .. ' ' .. ARGV[n + 1])")
        + """
local over = redis.call('HLEN', KEYS[1]) - keep
for position = last - keep - over + 1, last - keep do
  if over <= 0 then
    break
  end
  redis.call('HDEL', KEYS[2], string.match(redis.call('HGET', KEYS[1], position), '^%S+'))
  redis.call('HDEL', KEYS[1], position)
end
""",
        """
local last, fields = tonumber(redis.call('GET', KEYS[3])), {}
for position = math.max(1, last - 19), last do
  fields[#fields + 1] = position
end
return redis.call('HMGET', KEYS[1], unpack(fields))
""",
    ),
    "sorted set": (
        COMMON.replace("PUSH", "redis.call('ZADD', KEYS[1], last, ARGV[n] .. ' ' .. ARGV[n + 1])")
        + """
local over = redis.call('ZCARD', KEYS[1]) - keep
if over > 0 then
  for _, old in ipairs(redis.call('ZRANGE', KEYS[1], 0, over - 1)) do
    redis.call('HDEL', KEYS[2], string.match(old, '^%S+'))
  end
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1)
end
""",
        "return redis.call('ZRANGE', KEYS[1], -20, -1)",
    ),
}


def turn() -> list[Row]:
    """A question and an answer."""
    messages = [ChatMessage("user", "q" * 200), ChatMessage("assistant", "a" * 800)]
    return make_rows(messages, lambda message: 125)


async def microseconds(
    client: aioredis.Redis, work: Callable[[], Awaitable[object]], command: str = "evalsha"
) -> float:
    """The server's median time for a call of a command, by default of a script."""
    rounds = []
    for _ in range(ROUNDS):
        await client.config_resetstat()
        for _ in range(CALLS):
            await work()
        stats = await client.info("commandstats")
        rounds.append(float(stats[f"cmdstat_{command}"]["usec_per_call"]))
    return statistics.median(rounds)


async def candidate(client: aioredis.Redis, name: str, length: int) -> tuple[float, float, float]:
    """Bytes a message, microseconds of an append and of a read, for one of the candidates."""
    keys = [f"{{{name}}}:{part}" for part in ("entries", "ids", "last")]
    append, read = (client.register_script(source) for source in CANDIDATES[name])
    for first in range(0, length, BATCH):
        records = [record for _ in range(min(BATCH, length - first) // 2) for record in turn()]
        await append(
            keys, [length, *(part for record in records for part in (record.message_id, record.body))]
        )

    async def add() -> None:
        await append(
            keys, [length, *(part for record in turn() for part in (record.message_id, record.body))]
        )

    times = [await microseconds(client, add), await microseconds(client, lambda: read(keys))]
    size = sum([await client.memory_usage(key, samples=0) or 0 for key in keys])
    await client.unlink(*keys)
    return size / length, times[0], times[1]


async def ours(client: aioredis.Redis, url: str, length: int) -> tuple[float, float, float]:
    """The same for the library's layout, with time-to-live, statistics and all the rest."""
    log, key = RedisMessageLog(url, timeout=600), ThreadKey(None, "layout")
    for first in range(0, length, BATCH):
        records = [record for _ in range(min(BATCH, length - first) // 2) for record in turn()]
        await log.append(key, records)

    async def add() -> None:
        await log.append(key, turn(), max_messages=length, ttl=TimeToLive(3600.0))

    await log.latest(key, 20)  # the next reads are one LRANGE
    times = [
        await microseconds(client, add),
        await microseconds(client, lambda: log.latest(key, 20), "lrange"),
    ]
    size = sum([await client.memory_usage(one, samples=0) or 0 for one in thread_keys("agent", key)[:3]])
    await log.delete_thread(key)
    await log.aclose()
    return size / length, times[0], times[1]


async def main(url: str, largest: int) -> None:
    client = aioredis.Redis.from_url(url, socket_timeout=600)
    json_bytes = sum(len(record.body) for record in turn()) / 2
    print(f"JSON of a message: {json_bytes:.0f} bytes")
    print("| messages | layout | bytes a message | of its JSON | append a turn, µs | read the last 20, µs |")
    print("|---|---|---|---|---|---|")
    length = 10
    while length <= largest:
        for name in (*CANDIDATES, "ours"):
            measured = await (
                ours(client, url, length) if name == "ours" else candidate(client, name, length)
            )
            size, append, read = measured
            print(
                f"| {length:,} | {name} | {size:.0f} | {size / json_bytes:.2f} | {append:.0f} | {read:.0f} |",
                flush=True,
            )
        length *= 10
    await client.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--server", choices=["valkey9", "redis62"], default="valkey9")
    options = parser.parse_args()
    with RedisServer(options.server) as running:
        asyncio.run(main(running.url, options.largest))
