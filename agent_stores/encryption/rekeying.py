"""`rekey`: encrypts with the current key what is stored in the clear or with another key."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from agent_stores._encrypted import PREFIX
from agent_stores.backend import (
    Backend,
    ListCursor,
    Row,
    Snapshot,
    ThreadKey,
    VersionConflict,
    in_batches,
)
from agent_stores.encryption.backend import DAMAGED, EncryptedBackend
from agent_stores.encryption.envelope import decode_envelope, envelope_of
from agent_stores.errors import ArgumentTypeError, OutcomeUnknownError

_PAGE = 100  # rows or threads read at once
_PAUSE = 0.05  # seconds, at most, after another writer was faster


@dataclass
class RekeyReport:
    """What a run of `rekey` did.

    Attributes:
        threads: threads that were looked through.
        messages: messages that were encrypted with the current key.
        metadata: threads whose metadata was.
        damaged: messages that cannot be decrypted although the key is right; they stay as they are.
    """

    threads: int = 0
    messages: int = 0
    metadata: int = 0
    damaged: int = 0


async def rekey(backend: Backend, tenant: str | None = None) -> RekeyReport:
    """Encrypt all threads of a tenant with the current key, while applications write.

    Each step is one atomic commit that changes neither times, order nor time-to-live. Stopped at any moment,
    it has lost nothing, and the next run does the rest.

    Args:
        backend: the backend of a log that was opened with ``encryption=``.
        tenant: whose threads.

    Raises:
        ArgumentTypeError: when the log is not encrypted.
        EncryptionKeyError: when a key is missing or wrong; what it encrypts stays as it is.
    """
    if not isinstance(backend, EncryptedBackend):
        raise ArgumentTypeError("rekey needs a log that is opened with encryption=")
    report = RekeyReport()
    after: ListCursor | None = None
    while True:
        page = await backend.inner.threads(tenant, after=after, limit=_PAGE)
        for item in page:
            await _rekey_thread(backend, item.key, report)
            report.threads += 1
        if len(page) < _PAGE:
            return report
        after = ListCursor(page[-1].thread.updated_us, page[-1].key.thread_id)


async def _rekey_thread(backend: EncryptedBackend, key: ThreadKey, report: RekeyReport) -> None:
    after = 0
    while True:
        try:
            found = await backend.inner.rows(key, after=after, limit=_PAGE)
            if found is None:
                return
            last = await _rekey_page(backend, key, found, report)
        except (VersionConflict, OutcomeUnknownError):  # look again at what is there
            await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - jitter
            continue
        if last is None:
            return
        after = last


async def _rekey_page(
    backend: EncryptedBackend, key: ThreadKey, found: Snapshot, report: RekeyReport
) -> int | None:
    """Re-encrypt a page of rows, and the metadata; returns the last position, or None after the last page.

    Everything is committed under the version that was read, so that no other write is undone.
    """
    thread, version, rows = found
    stale = [row for row in rows if not _is_current(backend, row)]
    opened = await backend.open(key, stale)
    sizes = {row.position: row.bytes for row in stale}
    sealed = await backend.seal(key, [row for row in opened if row.body != DAMAGED])
    if any(not _is_current_value(backend, value) for value in thread.metadata.values()):
        plain = backend.open_metadata(key, thread, strict=True)
        thread = backend.seal_metadata(key, plain)
        version = await backend.inner.commit(key, thread, expected=version)
        report.metadata += 1
    for batch in in_batches(sealed, backend.inner.limits):
        grown = sum(row.bytes - sizes[row.position] for row in batch)
        thread = replace(thread, bytes=thread.bytes + grown)
        version = await backend.inner.commit(key, thread, expected=version, put=batch)
        report.messages += len(batch)
    report.damaged += len(stale) - len(sealed)
    return rows[-1].position if len(rows) == _PAGE else None


def _is_current_value(backend: EncryptedBackend, value: Any) -> bool:
    envelope = envelope_of(value)
    return envelope is not None and backend.keys.is_current(envelope)


def _is_current(backend: EncryptedBackend, row: Row) -> bool:
    envelope = decode_envelope(row.body) if row.body.startswith(PREFIX) else None
    return envelope is not None and backend.keys.is_current(envelope)
