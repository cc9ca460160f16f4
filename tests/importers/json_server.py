"""A server with RedisJSON, which no server of ours has: fakeredis's, completed by what it lacks.

It keeps what clients write and gives it back; its reply to ``TYPE`` for a document is that of RedisJSON.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fakeredis import TcpFakeServer
from fakeredis._helpers import SimpleString
from fakeredis.commands_mixins import generic_mixin


@pytest.fixture
def json_url(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty server."""
    base: Any = next(
        one for one in generic_mixin.GenericCommandsMixin.__mro__ if "_key_value_type" in vars(one)
    )
    known = base._key_value_type

    def kind(key: Any) -> Any:
        return SimpleString(b"ReJSON-RL") if isinstance(key.value, dict) else known(key)

    monkeypatch.setattr(base, "_key_value_type", staticmethod(kind))
    server = TcpFakeServer(("127.0.0.1", free_port), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{free_port}/0"
    server.shutdown()
    server.server_close()
    thread.join()
