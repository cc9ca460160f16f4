"""One conversation with mem0's AsyncMemory or its platform, in a process that can reach nothing else.

Run as ``python mem0_step.py``, with a JSON object on the standard input: ``runs``, each the provider's
arguments and the questions to ask; ``allowed`` (ports of this machine); ``folder`` and ``model_url`` for
`AsyncMemory`, or ``host`` and ``api_key`` for the platform. At its end, it writes the answers of each run and
every attempt to reach another address.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import sys
import time
from typing import Any

task: dict[str, Any] = json.load(sys.stdin)
attempts: list[str] = []
answers: list[list[str]] = []
# Registered first, it runs after everything that reports something at the end.
atexit.register(lambda: print(json.dumps({"answers": answers, "attempts": attempts})))


def guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse and write down every address but the allowed ones; no library can go around an audit hook."""
    if event == "socket.getaddrinfo":
        host, port = str(arguments[0]), arguments[1]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host, port = str(arguments[1][0]), arguments[1][1]
    else:
        return
    if host not in ("127.0.0.1", "localhost") or int(port or 0) not in task["allowed"]:
        attempts.append(f"{event} {host}:{port}")
        raise PermissionError(f"{host}:{port} is not allowed")


sys.addaudithook(guard)
# Telemetry that is refused is tried again after seconds; how often is no concern of the tests.
pause = time.sleep
time.sleep = lambda seconds: pause(min(float(seconds), 0.01))
os.environ.update(task.get("environment", {}))
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)

from agent_stores import ChatAgent, OpenAIChatClient  # noqa: E402
from agent_stores.mem0 import Mem0Provider  # noqa: E402


def local_memory() -> Any:
    """mem0's open-source memory, on disk, with the local test model as its embedder and model."""
    from mem0 import AsyncMemory

    folder, service = task["folder"], {"api_key": "test-key", "openai_base_url": task["model_url"]}
    return AsyncMemory.from_config(
        {
            "embedder": {"provider": "openai", "config": {**service, "model": "text-embedding-3-small"}},
            "llm": {"provider": "openai", "config": {**service, "model": "test-model"}},
            "vector_store": {"provider": "qdrant", "config": {"path": f"{folder}/vectors", "on_disk": True}},
            "history_db_path": f"{folder}/history.db",
        }
    )


async def run(memory: Any, scope: dict[str, Any], questions: list[str]) -> list[str]:
    """Each question in a thread of its own."""
    scope = {"on_error": "raise", "timeout": 30, **scope}
    if memory is not None:
        provider = Mem0Provider(mem0_client=memory, **scope)
    else:
        provider = Mem0Provider(api_key=task["api_key"], host=task["host"], **scope)
    model = OpenAIChatClient("test-model", api_key="test-key", base_url=task["model_url"])
    async with ChatAgent(model, instructions="Be kind.", context_providers=provider) as agent:
        return [(await agent.run(question)).text for question in questions]


async def main() -> None:
    """All runs, one after the other."""
    memory = local_memory() if "folder" in task else None
    for scope, questions in task["runs"]:
        answers.append(await run(memory, scope, questions))
    if memory is not None:
        memory.vector_store.client.close()
        memory.close()


asyncio.run(main())
