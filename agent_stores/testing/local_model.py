"""`local_model`: lets samples and demonstrations run as they are, also without an API key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from agent_stores.testing.model_server import ModelServer

__all__ = ["local_model"]


@contextmanager
def local_model() -> Iterator[str | None]:
    """Serve the test model while the block runs, unless the environment names a real one.

    When neither ``OPENAI_API_KEY`` nor ``OPENAI_BASE_URL`` is set, a `ModelServer` is started, and these and
    ``OPENAI_MODEL`` point to it in the environment of this process and of those that it starts.

    Yields:
        The local model's URL, or None when the environment's own model is used.
    """
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        yield None
        return
    with ModelServer() as server:
        values = {
            "OPENAI_API_KEY": server.api_key,
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_MODEL": "test-model",
        }
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield server.base_url
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
