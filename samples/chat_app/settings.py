"""Where the application keeps conversations and which model answers: read from the environment, once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SIGN_IN_WAYS = ("names", "oidc", "header:NAME")


@dataclass(frozen=True)
class Settings:
    """The application's settings.

    Attributes:
        store_url: what `agent_stores.open_log` takes: an SQLite file, PostgreSQL, MariaDB, Redis, ...
        has_model: whether the environment names a model's service; the local test model answers otherwise.
        sign_in: how users sign in: ``names``, ``oidc`` or ``header:NAME`` (see `identity`).
        memory: ``platform`` for mem0's platform, ``local`` for its open-source package, or empty for none.
        memory_host: another address of mem0's platform.
        folder: where local files are kept.
        is_default_store: whether the store is the SQLite file in that folder, as nothing else is named.
    """

    store_url: str
    has_model: bool
    sign_in: str
    memory: str
    memory_host: str | None
    folder: Path
    is_default_store: bool = False


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment names.

    Raises:
        ValueError: when one of them is not accepted.
    """
    data = environment.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    folder = Path(environment.get("CHAT_APP_FOLDER") or Path(data) / "agent-stores-chat")
    sign_in = environment.get("CHAT_APP_SIGN_IN") or "names"
    way, _, header = sign_in.partition(":")
    if sign_in not in ("names", "oidc") and not (way == "header" and header.strip()):
        raise ValueError(f"CHAT_APP_SIGN_IN is {sign_in!r}; it must be one of {', '.join(SIGN_IN_WAYS)}")
    memory = environment.get("CHAT_APP_MEMORY") or ("platform" if environment.get("MEM0_API_KEY") else "")
    if memory not in ("", "platform", "local"):
        raise ValueError(f"CHAT_APP_MEMORY is {memory!r}; it must be 'platform' or 'local'")
    return Settings(
        store_url=environment.get("AGENT_STORES_URL") or f"sqlite:///{folder / 'chat.db'}",
        has_model=bool(environment.get("OPENAI_API_KEY") or environment.get("OPENAI_BASE_URL")),
        sign_in=sign_in,
        memory=memory,
        memory_host=environment.get("MEM0_HOST") or None,
        folder=folder,
        is_default_store=not environment.get("AGENT_STORES_URL"),
    )
