"""How a fork names the threads that it was made from, so that an erasure finds it.

A key of the fork's metadata holds digests of its ancestors, the nearest first. It works on every backend, in
every listing, and without the key of an encrypted store, where keys of metadata stay readable. Applications
do not see it, and cannot write it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_stores.backend import ThreadKey

PREFIX = "$forked_from:"
"""Begins the key of metadata that holds the digests; its value says nothing."""

MAX_ANCESTORS = 32
"""How many ancestors a fork names, so that its metadata stays small whatever was forked how often."""


def thread_digest(key: ThreadKey) -> str:
    """A digest of a thread's names, 22 characters."""
    import base64
    import hashlib  # loads OpenSSL, which takes a while

    names = json.dumps(key).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(names).digest()[:16]).decode().rstrip("=")


def ancestors(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The digests of the threads that a thread was forked from, the nearest first."""
    for name in metadata:
        if name.startswith(PREFIX):
            return tuple(name.removeprefix(PREFIX).split("."))
    return ()


def fork_metadata(metadata: dict[str, Any], source: ThreadKey) -> dict[str, Any]:
    """The metadata of a fork of a thread that has this metadata."""
    known = (thread_digest(source), *ancestors(metadata))[:MAX_ANCESTORS]
    return {**own_metadata(metadata), PREFIX + ".".join(known): True}


def own_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """The application's part of a thread's metadata."""
    if not any(name.startswith(PREFIX) for name in metadata):
        return metadata
    return {name: value for name, value in metadata.items() if not name.startswith(PREFIX)}
