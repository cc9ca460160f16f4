"""Conversations in a database: SQLite, or the PostgreSQL or MariaDB that ``DATABASE_URL`` names.

Shows what a store does beyond keeping messages: windows, statistics, branches, time-to-live and tenants.

Run it with ``python samples/database_store.py``; it needs ``agent-stores[database]``, and with a
``DATABASE_URL=postgresql://user:password@host/database`` also ``agent-stores[postgresql]``.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from agent_stores import ChatMessage, DatabaseChatMessageStore


async def main(url: str) -> None:
    # The messages are in the database when add_messages returns; adding them again does nothing.
    async with DatabaseChatMessageStore(url, tenant="sample", max_messages=100, ttl=24 * 3600) as store:
        await store.add_messages(
            [
                ChatMessage("user", "Where is the Eiffel Tower?"),
                ChatMessage("assistant", "In Paris."),
                ChatMessage("user", "How tall is it?"),
                ChatMessage("assistant", "330 metres."),
            ]
        )
        print("stored in", store.location)

        # What a model is shown may be less than what is kept.
        for message in await store.list_messages(last=2):
            print(f"  {message.role}: {message.text}")

        stats = await store.stats()
        print(f"{stats.messages} messages, {stats.bytes} bytes, until {stats.expires_at:%Y-%m-%d %H:%M}")

        # A branch goes its own way from any position.
        async with await store.fork(at=2) as branch:
            await branch.add_messages([ChatMessage("user", "And the Colosseum?")])
            print("the branch:", [message.text for message in await branch.list_messages()])
            await branch.delete_thread()

        print(
            "threads of this tenant:", [thread.thread_id for thread in (await store.list_threads()).threads]
        )
        await store.delete_thread()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(os.environ.get("DATABASE_URL") or str(Path(folder) / "chat.db")))
