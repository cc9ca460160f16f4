"""Microsoft Agent Framework's histories in Redis: scoped keys of 1.x, and the plain ones before them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from agent_stores.errors import ArgumentError
from agent_stores.importers.parsers.agent_framework import agent_framework_message
from agent_stores.importers.redis_list import RedisListSource, after_prefix
from agent_stores.importers.source import SourceThread

_VERSION = "v2"
_ABSENT = "~none"
_PARTS = ("key-prefix", "tenant", "application", "agent", "source", "session")
_MARKER = "sha256-"
_LITERAL = re.compile(r"[a-z0-9_-](?:[a-z0-9._-]*[a-z0-9_-])?")
_FORMATS = ("scoped", "legacy", "both")


def agent_framework_list(
    url: str,
    *,
    key_prefix: str = "chat_messages",
    key_format: str = "both",
    tenant_id: str | None = None,
    application_id: str | None = None,
    agent_id: str | None = None,
    source_id: str | None = None,
) -> RedisListSource:
    """Lists of `RedisHistoryProvider`, and of the betas' `RedisChatMessageStore`, oldest message first.

    Args:
        url: the server, as `RedisChatMessageStore` takes it.
        key_prefix: what the framework was given as such.
        key_format: ``scoped`` or ``legacy`` keys, or ``both``.
        tenant_id: only this tenant's; all by default, each to the tenant of the same name.
        application_id: only this application's.
        agent_id: only this agent's.
        source_id: only those of the provider with this ``source_id``.

    Raises:
        ArgumentError: for another key format, or a scope with legacy keys, which have none.
    """
    if key_format not in _FORMATS:
        raise ArgumentError(f"key_format must be one of {', '.join(_FORMATS)}, got {key_format!r}")
    given = {"tenant": tenant_id, "application": application_id, "agent": agent_id, "source": source_id}
    wanted = {name: value for name, value in given.items() if value is not None}
    if wanted and key_format == "legacy":
        raise ArgumentError(
            f"{next(iter(wanted))}_id must be None with key_format 'legacy': such keys have no scope"
        )
    legacy = after_prefix(f"{key_prefix}:")
    patterns = []
    if key_format != "legacy":
        patterns += [
            (f"{beginning}|{_VERSION}|", "")
            for beginning in dict.fromkeys(_segments(key_prefix, "key-prefix"))
        ]
    if key_format != "scoped" and not wanted:
        patterns.append((f"{key_prefix}:", ""))

    def thread(key: str) -> SourceThread | None:
        scope = parse_key(key, key_prefix)
        if scope is not None:
            return scope.thread(key) if scope.is_of(wanted) else None
        return legacy(key) if key.startswith(f"{key_prefix}:") else None

    return RedisListSource(
        "agent-framework", url, parse=agent_framework_message, patterns=patterns, thread=thread
    )


class Scope(NamedTuple):
    """What a scoped key says; a part that it holds as a digest only is given as it stands there."""

    tenant: str | None
    application: str | None
    agent: str | None
    source: str | None
    session: str | None

    def is_of(self, wanted: Mapping[str, str]) -> bool:
        """Whether it is of the tenant, application, agent and source that are asked for."""
        return all(getattr(self, name) in (value, _digested(value, name)) for name, value in wanted.items())

    def thread(self, key: str) -> SourceThread | None:
        """The thread of the key."""
        if not self.session:
            return None
        note = None
        if self.session.startswith("~"):
            note = (
                "the session's id is longer than the framework writes into a key, so that only its digest is "
                "known: give the id with --map"
            )
        tenant = self.tenant
        return SourceThread(thread_id=self.session, location=key, tenant=tenant, note=note)


def parse_key(key: str, key_prefix: str) -> Scope | None:
    """What a scoped key says; None for another key."""
    parts = key.split("|")
    if len(parts) != len(_PARTS) + 1 or parts[1] != _VERSION:
        return None
    del parts[1]
    if parts[0] not in _segments(key_prefix, "key-prefix"):
        return None
    return Scope(*(_decoded(part, name) for part, name in zip(parts[1:], _PARTS[1:], strict=True)))


def _segments(value: str, name: str) -> tuple[str, ...]:
    """The forms that a value may have in a key: as it is where that is safe, else encoded."""
    encoded = _encoded(value, name)
    return (value, encoded) if _LITERAL.fullmatch(value) else (encoded, _digested(value, name))


def _encoded(value: str, name: str) -> str:
    text = base64.b32encode(value.encode()).decode().rstrip("=").lower()
    return f"~redis-{name}-{text}"


def _digested(value: str, name: str) -> str:
    return f"~redis-{name}-{_MARKER}{hashlib.sha256(value.encode()).hexdigest()}"


def _decoded(part: str, name: str) -> str | None:
    if part == _ABSENT:
        return None
    prefix = f"~redis-{name}-"
    if not part.startswith(prefix):
        return part
    text = part[len(prefix) :].upper()
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8)).decode()
    except (binascii.Error, ValueError):
        return part
