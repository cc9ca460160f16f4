"""Sessions of the Claude Agent SDK in SQLite: mirrored, listed, and read by other code.

Claude is not called: the sample writes the transcript, as ``ClaudeAgentOptions(session_store=store)`` does.

Run it with ``python samples/claude_agent_sessions.py``; it needs ``agent-stores[claude-agent,database]``.
"""

import asyncio
import tempfile
import uuid
from typing import Any

from claude_agent_sdk import list_sessions_from_store, project_key_for_directory

from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.database import DatabaseChatMessageStore


async def main(url: str) -> None:
    project, session_id = project_key_for_directory("."), str(uuid.uuid4())
    async with AgentStoresSessionStore(url) as store:
        said = {"type": "user", "uuid": "1", "message": {"role": "user", "content": "Will it rain in Oslo?"}}
        answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
        title = {"type": "custom-title", "customTitle": "Weather in Oslo"}
        entries: list[Any] = [said, {"type": "assistant", "uuid": "2", "message": answer}, title]
        await store.append({"project_key": project, "session_id": session_id}, entries)
        for session in await list_sessions_from_store(store):
            print(f"1 session: {session.summary!r}")
            async with DatabaseChatMessageStore(url, thread_id=f"{project}/{session.session_id}") as messages:
                for message in await messages.list_messages():
                    if message.text:  # the title is a row, too
                        print(f"{message.role}: {message.text}")
        loaded = await store.load({"project_key": project, "session_id": session_id})
        print(f"resumed: {len(loaded or [])} entries")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
