"""Envelope encryption: each tenant has a data key, which master keys of a file wrap; destroying it erases.

In production, a class with the same two methods as `LocalKeyService` calls a key service instead.

Run it with ``python samples/key_service.py``; it needs ``agent-stores[database,encryption]``.
"""

import asyncio
import base64
import json
import os
import tempfile
from pathlib import Path

from agent_stores import (
    ChatMessage,
    DatabaseChatMessageStore,
    DataKeys,
    EncryptionKeyError,
    KeyRing,
    LocalKeyService,
    open_log,
)


def load_master_keys(file: Path) -> KeyRing:
    """The keys of a file that only its owner can read; made where there is none."""
    if not file.exists():
        key = base64.b64encode(os.urandom(32)).decode()
        file.touch(mode=0o600)
        file.write_text(json.dumps({"current": "2026-11", "keys": {"2026-11": key}}))
    document = json.loads(file.read_text())
    keys = {key_id: base64.b64decode(key) for key_id, key in document["keys"].items()}
    return KeyRing(keys, document["current"])


def is_in_the_clear(folder: Path) -> bool:
    """Whether a file has a message's text."""
    return any(b"We are" in file.read_bytes() for file in folder.iterdir())


async def main(folder: Path) -> None:
    service = LocalKeyService(load_master_keys(folder / "master.json"))
    key_log = open_log(folder / "keys.db")
    keys = DataKeys(service, key_log, per="tenant")

    for tenant in ("acme", "zoo"):
        store = DatabaseChatMessageStore(folder / "chat.db", thread_id="t", tenant=tenant, encryption=keys)
        async with store:
            await store.add_messages([ChatMessage("user", f"We are {tenant}.")])
    print("in the clear:", await asyncio.to_thread(is_in_the_clear, folder))

    print("destroyed:", len(await keys.destroy("acme")), "key")
    for tenant in ("acme", "zoo"):
        store = DatabaseChatMessageStore(folder / "chat.db", thread_id="t", tenant=tenant, encryption=keys)
        async with store:
            try:
                print(f"{tenant}:", (await store.list_messages())[0].text)
            except EncryptionKeyError as error:
                print(f"{tenant}:", error)
    await key_log.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
