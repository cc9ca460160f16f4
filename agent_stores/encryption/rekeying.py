"""`rekey`: encrypts with the current key what is stored in the clear or with another key.

First messages and metadata, thread by thread, then the files of attachments that remain.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from agent_stores._attached import PREFIX, KeptFile
from agent_stores._encrypted import check_keys, is_marked
from agent_stores.append_plan import in_batches
from agent_stores.backend import (
    Backend,
    Change,
    Row,
    RowRange,
    Thread,
    ThreadKey,
    Version,
    VersionConflict,
)
from agent_stores.encryption.backend import DAMAGED, EncryptedBackend, encrypt_rows
from agent_stores.encryption.ciphers import Ciphers
from agent_stores.encryption.ciphertext import to_ciphertext
from agent_stores.errors import ArgumentTypeError, EncryptionKeyError, OutcomeUnknownError
from agent_stores.listing import iter_threads
from agent_stores.wrapped_backend import WrappedBackend

T = TypeVar("T")

_PAGE = 100  # rows or threads read at once
_PAUSE = 0.05  # seconds, at most, after another writer was faster
_PATIENCE = 30.0  # seconds of conflicts with other writers, and of lost connections, on one page
_MOST_PROBLEMS = 100  # that are kept


class RekeyProblem(NamedTuple):
    """What a run of `rekey` left as it is.

    Attributes:
        tenant: whose thread; None for a thread without a tenant.
        thread_id: the thread; for a file of an attachment one that may refer to it.
        position: the message; 0 for metadata, a file, or the rest of the thread.
        reason: why.
    """

    tenant: str | None
    thread_id: str
    position: int
    reason: str


@dataclass
class RekeyReport:
    """What a run of `rekey` did.

    Attributes:
        threads: threads that were looked through.
        messages: messages that were encrypted with the current key.
        attachments: files of attachments that were.
        metadata: threads whose metadata was.
        damaged: messages, values of metadata and files that cannot be decrypted although the key is right.
        too_large: messages that are larger, when encrypted, than the server can store.
        failed: threads that were left before their end: a key is missing, or other writers were faster.
        failed_attachments: files of attachments whose key is missing; messages with attachments, when the log
            has none.
        problems: what stays as it is, and why; the first 100.
    """

    threads: int = 0
    messages: int = 0
    attachments: int = 0
    metadata: int = 0
    damaged: int = 0
    too_large: int = 0
    failed: int = 0
    failed_attachments: int = 0
    problems: list[RekeyProblem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything that was looked through has the current key."""
        return not (self.damaged or self.too_large or self.failed or self.failed_attachments)

    def add_problem(self, key: ThreadKey, position: int, reason: str) -> None:
        """Note what stays as it is."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(RekeyProblem(key.tenant, key.thread_id, position, reason))


class _Files(Protocol):
    """The files of a tenant's attachments; see `agent_stores.attachments.rekeying`."""

    stored: int

    async def renew(self, key: ThreadKey, rows: Sequence[Row]) -> list[Row]: ...

    def replace_all(self) -> AsyncIterator[KeptFile | None]: ...


def encrypted_backend(backend: Backend) -> EncryptedBackend | None:
    """The part of a log's backend that encrypts; None when there is none."""
    while isinstance(backend, WrappedBackend):
        if isinstance(backend, EncryptedBackend):
            return backend
        backend = backend.inner
    return None


def _files_of(backend: Backend, tenant: str | None) -> _Files | None:
    rekeying: Any = getattr(backend, "rekeying", None)
    files: _Files | None = None if rekeying is None else rekeying(tenant)
    return files


async def rekey(
    backend: Backend,
    tenant: str | None = None,
    *,
    report: RekeyReport | None = None,
    progress: Callable[[RekeyReport], None] = lambda report: None,
) -> RekeyReport:
    """Encrypt all threads of a tenant with the current key, and their attachments, while applications write.

    Each step is one atomic commit that changes neither times, order nor time-to-live. Stopped at any moment,
    it has lost nothing, and the next run does the rest. What cannot be encrypted stays as it is, is reported,
    and stops nothing else. After a run that is `RekeyReport.complete`, and that found nothing to encrypt, no
    other key is needed.

    A file of an attachment is stored again, encrypted, and then removed. A client that has its address finds
    the new one.

    Args:
        backend: the backend of a log that was opened with ``encryption=``, and with ``attachments=`` where
            messages have some.
        tenant: whose threads.
        report: a report to add to.
        progress: called with the report after each thread, and each page of a long one.

    Raises:
        ArgumentTypeError: when the log is not encrypted.
        AttachmentError: when the file system of the attachments fails; the next run does the rest.
        StoreError: when the server fails; likewise.
    """
    encrypted = encrypted_backend(backend)
    if encrypted is None:
        raise ArgumentTypeError("the log must be opened with encryption=, got one without")
    report = RekeyReport() if report is None else report
    files, before = _files_of(backend, tenant), report.attachments

    def count() -> None:
        if files is not None:
            report.attachments = before + files.stored

    def note() -> None:
        count()
        progress(report)

    try:
        await _rekey_threads(encrypted, files, tenant, report, note)
        if files is not None:
            await _replace_files(files, tenant, report, note)
    finally:
        count()
    return report


async def _rekey_threads(
    backend: EncryptedBackend,
    files: _Files | None,
    tenant: str | None,
    report: RekeyReport,
    note: Callable[[], None],
) -> None:
    async for item in iter_threads(backend.inner, tenant, page_size=_PAGE):
        try:
            await _rekey_thread(backend, files, item.key, report, note)
        except (EncryptionKeyError, _BusyError) as error:
            report.failed += 1
            report.add_problem(item.key, 0, str(error))
        report.threads += 1
        note()


async def _replace_files(
    files: _Files, tenant: str | None, report: RekeyReport, note: Callable[[], None]
) -> None:
    async for kept in files.replace_all():
        if kept is not None:
            report.damaged += kept.is_damaged
            report.failed_attachments += not kept.is_damaged
            report.add_problem(ThreadKey(tenant, kept.thread_id), 0, kept.reason)
        note()


class _BusyError(Exception):
    """Other writers were faster all the time."""


async def _rekey_thread(
    backend: EncryptedBackend,
    files: _Files | None,
    key: ThreadKey,
    report: RekeyReport,
    note: Callable[[], None],
) -> None:
    await _retry(lambda _: _rekey_head(backend, key, report))
    after = 0
    while True:
        step = partial(_rekey_page, backend, files, key, after, report)
        last = await _retry(step)
        if last is None:
            return
        after = last
        note()


async def _retry(step: Callable[[int], Awaitable[T]]) -> T:
    """The result of a step, which is done again when another writer was faster.

    Args:
        step: is given how many rows it may read: fewer each time, as a shorter commit is in time more often.

    Raises:
        _BusyError: when that goes on for too long.
    """
    size, deadline = _PAGE, None
    while True:
        try:
            return await step(size)
        except (VersionConflict, OutcomeUnknownError) as error:
            if deadline is None:  # the first attempt may have stored many attachments
                deadline = time.monotonic() + _PATIENCE
            if time.monotonic() > deadline:
                busy = f"other writers were faster for {_PATIENCE:g} seconds"
                raise _BusyError(str(error) or busy) from None
        await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - jitter
        size = max(1, size // 2)


async def _rekey_page(
    backend: EncryptedBackend,
    files: _Files | None,
    key: ThreadKey,
    after: int,
    report: RekeyReport,
    size: int,
) -> int | None:
    """Re-encrypt a page of rows; returns the last position, or None after the last page.

    Everything is committed under the version that was read, so that no other write is undone.
    """
    found = await backend.inner.rows(key, RowRange(after=after, limit=size))
    if found is None or not found.rows:
        return None
    thread, version, rows = found
    ciphers = await backend.keys.for_writing(key)
    opened = await backend.open(key, rows)
    readable = [row for row in opened if row.body != DAMAGED]
    renewed = readable if files is None else await files.renew(key, readable)
    stored = {row.position: row for row in rows}
    stale = [
        new
        for old, new in zip(readable, renewed, strict=True)
        if new is not old or not ciphers.encrypted(stored[new.position].body)
    ]
    sealed = encrypt_rows(ciphers, key, stale)
    limit = backend.inner.limits.body_bytes
    large = [row for row in sealed if limit is not None and row.bytes > limit]
    for batch in in_batches([row for row in sealed if row not in large], backend.inner.limits):
        grown = sum(row.bytes - stored[row.position].bytes for row in batch)
        thread = replace(thread, bytes=thread.bytes + grown)
        version = await backend.inner.commit(key, Change(thread, version, batch))
        report.messages += len(batch)
    report.damaged += len(opened) - len(readable)
    report.too_large += len(large)
    for row in opened:
        if row.body == DAMAGED:
            report.add_problem(key, row.position, "the message was changed or moved")
        elif files is None and row.body.startswith(PREFIX):
            report.failed_attachments += 1
            report.add_problem(key, row.position, "the message has attachments: give the log attachments=")
    for row in large:
        text = f"the message has {row.bytes} bytes when it is encrypted; the limit is {limit}"
        report.add_problem(key, row.position, text)
    return rows[-1].position if len(rows) == size else None


async def _rekey_head(backend: EncryptedBackend, key: ThreadKey, report: RekeyReport) -> None:
    """Remove the rows that an unfinished commit left, as any writer does, and re-encrypt the metadata."""
    found = await backend.inner.load(key)
    if found is None:
        return
    thread, version, _ = found
    if thread.staged_position:
        version = await _remove_staged(backend, key, thread, version)
        thread = replace(thread, staged_position=0)
    if not thread.metadata:
        return
    ciphers = await backend.keys.for_writing(key)
    stale = {name for name, value in thread.metadata.items() if not _is_current(ciphers, value)}
    opened = await backend.open_metadata(key, thread)
    check_keys(opened.metadata)
    unreadable = {name: opened.metadata[name] for name in stale if is_marked(opened.metadata[name])}
    for name, value in unreadable.items():
        if value["why"] != "damaged":
            raise EncryptionKeyError(f"metadata {name!r} is not encrypted, and allow_plaintext is False")
    if len(stale) > len(unreadable):
        sealed = await backend.seal_metadata(key, opened)
        await backend.inner.commit(key, Change(sealed, version))
        report.metadata += 1
    report.damaged += len(unreadable)
    for name in unreadable:
        report.add_problem(key, 0, f"metadata {name!r} was changed or moved")


async def _remove_staged(
    backend: EncryptedBackend, key: ThreadKey, thread: Thread, version: Version | None
) -> Version | None:
    """Remove rows above the last position: they are encrypted with any key, or with none."""
    wanted = RowRange(after=thread.last_position, limit=_PAGE, bodies=False, staged=True)
    while True:
        found = await backend.inner.rows(key, wanted)
        if found is None or found.version != version:
            raise VersionConflict
        if not found.rows:
            return await backend.inner.commit(key, Change(replace(thread, staged_position=0), version))
        for batch in in_batches(found.rows, backend.inner.limits):
            version = await backend.inner.commit(key, Change(thread, version, delete=batch))


def _is_current(ciphers: Ciphers, value: object) -> bool:
    ciphertext = to_ciphertext(value)
    return ciphertext is not None and ciphertext.key == ciphers.current
