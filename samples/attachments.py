"""Images outside of the database: stored once, and read only when they are asked for.

Run it with ``python samples/attachments.py``; it needs ``agent-stores[database,attachments]``.
"""

import asyncio
import tempfile
from pathlib import Path

from agent_stores import (
    Attachments,
    ChatMessage,
    DatabaseChatMessageStore,
    DataContent,
    TextContent,
    UriContent,
    load_attachment,
)


async def main(folder: Path) -> None:
    def create_store(*, lazy: bool = False) -> DatabaseChatMessageStore:
        files = Attachments(folder / "files", over=64_000, lazy=lazy)  # or s3://bucket/prefix
        return DatabaseChatMessageStore(folder / "chat.db", thread_id="holiday", attachments=files)

    async with create_store() as store:
        picture = DataContent(bytes(2_000_000), "image/png", "beach.png")
        await store.add_messages([ChatMessage("user", contents=[TextContent("Look!"), picture])])
        print("stored:", (await store.stats()).bytes, "bytes in the database")
    async with create_store(lazy=True) as store:
        [message] = await store.list_messages()
        print("read:", message.text, [type(part).__name__ for part in message.contents])
        for part in message.contents:
            if isinstance(part, UriContent):
                print("loaded:", len((await load_attachment(store, part)).data), "bytes of", part.filename)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
