"""A ChatKit server whose threads are kept in SQLite; each user sees their own.

Run it with ``python samples/chatkit_server.py``; it needs ``agent-stores[chatkit,database]``.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from chatkit.server import ChatKitServer
from chatkit.types import AssistantMessageItem, ThreadItemDoneEvent

from agent_stores.chatkit import AgentStoresChatKitStore


class EchoServer(ChatKitServer[Any]):  # noqa: D101
    async def respond(self, thread: Any, input_user_message: Any, context: Any) -> AsyncIterator[Any]:
        content: Any = [{"text": f"You said {input_user_message.content[0].text!r}."}]
        about: Any = {"thread_id": thread.id, "created_at": datetime.now(timezone.utc)}
        yield ThreadItemDoneEvent(item=AssistantMessageItem(id="answer", content=content, **about))


async def main(url: str) -> None:
    async with AgentStoresChatKitStore[Any](url, tenant_of=lambda context: context["user"]) as store:
        content = [{"type": "input_text", "text": "Hello"}]
        said = {"content": content, "attachments": [], "inference_options": {}}
        request = json.dumps({"type": "threads.create", "params": {"input": said}})
        events: Any = await EchoServer(store).process(request, {"user": "alice"})
        print(*[event.decode().strip() async for event in events], sep="\n")
        for user in ("alice", "bob"):
            threads = (await store.load_threads(10, None, "desc", {"user": user})).data
            print(user, "has", len(threads), "threads")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
