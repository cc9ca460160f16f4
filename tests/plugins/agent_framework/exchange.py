"""Writes a conversation with the installed Agent Framework, or reads one; run by test_versions.py.

    python exchange.py write|read URL

Both say on the output what the messages are, as JSON: the framework's own dump, an array of objects.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from agent_stores import ChatMessageStore, open_log
from agent_stores.plugins.agent_framework.codec import AgentFrameworkCodec
from tests.plugins.agent_framework.kinds import dump, messages


async def main(action: str, url: str) -> list[dict[str, Any]]:
    log = open_log(url)
    codec: Any = AgentFrameworkCodec()
    store: ChatMessageStore[Any] = ChatMessageStore(log, thread_id="t", codec=codec, dangling_calls="keep")
    if action == "write":
        await store.add_messages(messages())
    found = [dump(message) for message in await store.list_messages()]
    await log.aclose()
    return found


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
