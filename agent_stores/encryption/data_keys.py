"""`DataKeys`: envelope encryption. A key service wraps a data key for each tenant or thread."""

from __future__ import annotations

import base64
import binascii
import inspect
import os
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from agent_stores._recent import RecentDict
from agent_stores.backend import ThreadKey
from agent_stores.encryption.ciphers import KEY_BYTES, Ciphers, Keys
from agent_stores.encryption.key_ring import KeyRing
from agent_stores.encryption.key_service import KeyService
from agent_stores.errors import (
    AgentStoresError,
    ArgumentError,
    ArgumentTypeError,
    ConflictError,
    EncryptionKeyError,
    StoreError,
)

if TYPE_CHECKING:
    from agent_stores.log import MessageLog

Scope = Literal["tenant", "thread"]
"""What has a data key of its own."""

_TENANT_THREAD = "data keys"
_CURRENT = "current"
_WRAPPED = "wrapped"
_DESTROYED = "destroyed"
_ATTEMPTS = 10


class _Cached(NamedTuple):
    deadline: float  # by `time.monotonic`
    ciphers: Ciphers
    destroyed: frozenset[str]


class DataKeys(Keys):
    """Data keys of AES-256-GCM that a key service wraps: one for each tenant, or for each thread.

    The wrapped keys are the metadata of threads in a log of their own, one thread for each tenant (its id is
    ``data keys``) or for each thread (with the same id): ``{"current": ID, ID: {"wrapped": BASE64}}``. Keep
    that log apart from the conversations, in another database and other backups: `destroy` then erases what
    the keys encrypted, in every copy of the conversations. A log with another table or key prefix in the
    same database works too.

    Unwrapped keys are cached in this process. So another process goes on reading and writing for at most
    `cache_seconds` after a key was destroyed there.

    Args:
        service: wraps the keys.
        log: where the wrapped keys are; it is not closed.
        per: what has a key of its own.
        cache_size: how many tenants or threads are cached.
        cache_seconds: how long.
        former: keys that what was written before is encrypted with; `rekey` replaces them.
        allow_plaintext: whether values that are not encrypted are read.

    Raises:
        ArgumentError, ArgumentTypeError: for arguments of another type or size.
        MissingDependencyError: when `cryptography` is not installed; names the extra.
    """

    supports_inline = False

    def __init__(
        self,
        service: KeyService,
        log: MessageLog,
        *,
        per: Scope = "tenant",
        cache_size: int = 1000,
        cache_seconds: float = 300.0,
        former: KeyRing | None = None,
        allow_plaintext: bool = True,
    ) -> None:
        if not isinstance(service, KeyService):
            raise ArgumentTypeError(f"service must have wrap and unwrap, got {type(service).__name__}")
        if per not in get_args(Scope):
            raise ArgumentError(f"per must be 'tenant' or 'thread', got {per!r}")
        if cache_size < 1:
            raise ArgumentError(f"cache_size must be at least 1, got {cache_size}")
        if not cache_seconds >= 0:
            raise ArgumentError(f"cache_seconds must not be negative, got {cache_seconds}")
        if former is not None and not isinstance(former, KeyRing):
            raise ArgumentTypeError(f"former must be a KeyRing or None, got {type(former).__name__}")
        Ciphers({}, None)  # says what is not installed
        self._service = service
        self._log = log
        self._per = per
        self._seconds = cache_seconds
        self._former = former
        self.allow_plaintext = allow_plaintext
        self.loop_independent = log.loop_independent
        self._cache: RecentDict[ThreadKey, _Cached] = RecentDict(cache_size)

    def cached(self, key: ThreadKey) -> Ciphers | None:
        """See `Keys.cached`."""
        found = self._cache.get(self._scope(key))
        if found is None or found.ciphers.current is None or found.deadline <= time.monotonic():
            return None
        return found.ciphers

    async def for_writing(self, key: ThreadKey) -> Ciphers:
        """See `Keys.for_writing`; makes the data key of a tenant or thread that has none."""
        scope = self._scope(key)
        for _ in range(_ATTEMPTS):
            found = await self._load(scope)
            if found.ciphers.current is not None:
                return found.ciphers
            if found.destroyed:
                raise _destroyed(sorted(found.destroyed)[0], scope)
            await self._add(scope, 0)
        raise StoreError(f"{self._log.location}: the data key of {_name(scope)} changes all the time")

    async def for_reading(self, key: ThreadKey, key_ids: Collection[str]) -> Ciphers:
        """See `Keys.for_reading`."""
        scope = self._scope(key)
        found = self._cache.get(scope)
        if found is None or found.deadline <= time.monotonic() or not found.ciphers.has(key_ids):
            found = await self._load(scope)
        for key_id in key_ids:
            if key_id in found.destroyed:
                raise _destroyed(key_id, scope)
        return found.ciphers

    async def rotate(self, tenant: str | None, thread_id: str | None = None) -> str:
        """Make a new data key the current one; `rekey` then re-encrypts what former ones encrypted.

        Also after `destroy`, to write again.

        Args:
            tenant: whose key; None for what has no tenant.
            thread_id: the thread, where each thread has a key.

        Returns:
            The id of the new key.
        """
        scope = self._named(tenant, thread_id)
        for _ in range(_ATTEMPTS):
            stats = await self._log.stats(scope)
            if key_id := await self._add(scope, stats.revision if stats else 0):
                return key_id
        raise StoreError(f"{self._log.location}: the data key of {_name(scope)} changes all the time")

    async def destroy(self, tenant: str | None, thread_id: str | None = None) -> list[str]:
        """Remove all data keys of a tenant or thread: what they encrypted can never be read again.

        The ids of the keys stay, so that reading and writing raise `EncryptionKeyError` with the id.

        Args:
            tenant: whose keys; None for what has no tenant.
            thread_id: the thread, where each thread has a key.

        Returns:
            The ids of the keys that were removed; none when they were removed before.
        """
        scope = self._named(tenant, thread_id)
        while True:
            stats = await self._log.stats(scope)
            stored = {} if stats is None else _entries(stats.metadata)
            removed = [key_id for key_id, entry in stored.items() if _WRAPPED in entry]
            if stats is not None and removed:
                changes: dict[str, Any] = {key_id: {_DESTROYED: True} for key_id in removed}
                try:
                    await self._log.update_metadata(
                        scope, {**changes, _CURRENT: None}, expected_revision=stats.revision
                    )
                except ConflictError:
                    continue
            self._cache.discard(scope)
            return removed

    async def rewrap(self, tenant: str | None, thread_id: str | None = None) -> int:
        """Wrap the data keys of a tenant or thread again, after the service's master key changed.

        Returns:
            How many keys there are.
        """
        scope = self._named(tenant, thread_id)
        while True:
            stats = await self._log.stats(scope)
            if stats is None:
                return 0
            changes: dict[str, Any] = {}
            for key_id, entry in _entries(stats.metadata).items():
                if _WRAPPED in entry:
                    changes[key_id] = await self._wrap(
                        scope, key_id, await self._unwrap(scope, key_id, entry)
                    )
            try:
                if changes:
                    await self._log.update_metadata(scope, changes, expected_revision=stats.revision)
                return len(changes)
            except ConflictError:
                continue

    # -- the cache, and the wrapped keys ------------------------------------------------------------------

    def _scope(self, key: ThreadKey) -> ThreadKey:
        return key if self._per == "thread" else ThreadKey(key.tenant, _TENANT_THREAD)

    def _named(self, tenant: str | None, thread_id: str | None) -> ThreadKey:
        if (thread_id is None) == (self._per == "thread"):
            needed = "must be given: each thread" if self._per == "thread" else "must be None: each tenant"
            raise ArgumentError(f"thread_id {needed} has a data key, got {thread_id!r}")
        return self._scope(ThreadKey(tenant, thread_id or ""))

    async def _load(self, scope: ThreadKey) -> _Cached:
        stats = await self._log.stats(scope)
        metadata = {} if stats is None else stats.metadata
        keys, destroyed = dict[str, bytes](), set[str]()
        for key_id, entry in _entries(metadata).items():
            if _WRAPPED in entry:
                keys[key_id] = await self._unwrap(scope, key_id, entry)
            else:
                destroyed.add(key_id)
        current = metadata.get(_CURRENT)
        ciphers = Ciphers(keys, current if current in keys else None)
        if self._former is not None:
            ciphers = ciphers.including(self._former.ciphers)
        found = _Cached(time.monotonic() + self._seconds, ciphers, frozenset(destroyed))
        self._cache[scope] = found
        return found

    async def _add(self, scope: ThreadKey, revision: int) -> str | None:
        """Add a data key and make it the current one; None when another client changed the keys meanwhile."""
        key_id = f"dk-{os.urandom(8).hex()}"
        entry = await self._wrap(scope, key_id, os.urandom(KEY_BYTES))
        try:
            await self._log.update_metadata(
                scope, {key_id: entry, _CURRENT: key_id}, expected_revision=revision
            )
        except ConflictError:
            return None
        self._cache.discard(scope)
        return key_id

    async def _wrap(self, scope: ThreadKey, key_id: str, data_key: bytes) -> dict[str, str]:
        wrapped = await self._call("wrap", data_key, scope, key_id)
        return {_WRAPPED: base64.b64encode(wrapped).decode()}

    async def _unwrap(self, scope: ThreadKey, key_id: str, entry: Mapping[str, Any]) -> bytes:
        try:
            wrapped = base64.b64decode(entry[_WRAPPED], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise EncryptionKeyError(f"the data key {key_id!r} is damaged", key_id=key_id) from None
        data_key = await self._call("unwrap", wrapped, scope, key_id)
        if len(data_key) != KEY_BYTES:
            raise EncryptionKeyError(
                f"the key service must return {KEY_BYTES} bytes for the data key {key_id!r}, "
                f"got {len(data_key)}",
                key_id=key_id,
            )
        return data_key

    async def _call(self, method: str, data: bytes, scope: ThreadKey, key_id: str) -> bytes:
        function = getattr(self._service, method)
        context = {"key": key_id, "thread": scope.thread_id}
        if scope.tenant is not None:
            context["tenant"] = scope.tenant
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(data, context)
            else:
                import asyncio  # late: it would double the time of importing the package

                result = await asyncio.to_thread(partial(function, data, context))
                if inspect.isawaitable(result):
                    result = await result
        except AgentStoresError:
            raise
        except Exception as error:
            raise EncryptionKeyError(
                f"the key service cannot {method} the data key {key_id!r} of {_name(scope)}: "
                f"{type(error).__name__}",
                key_id=key_id,
            ) from error
        if not isinstance(result, bytes):
            raise ArgumentTypeError(f"{method} must return bytes, got {type(result).__name__}")
        return result


def _entries(metadata: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: entry for name, entry in metadata.items() if isinstance(entry, dict)}


def _name(scope: ThreadKey) -> str:
    if scope.thread_id == _TENANT_THREAD:
        return "the threads without a tenant" if scope.tenant is None else f"tenant {scope.tenant!r}"
    return f"thread {scope.thread_id!r}"


def _destroyed(key_id: str, scope: ThreadKey) -> EncryptionKeyError:
    return EncryptionKeyError(
        f"the data key {key_id!r} of {_name(scope)} was destroyed: what it encrypted cannot be read",
        key_id=key_id,
    )
