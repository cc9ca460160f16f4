"""The files of attachments, and how they are shared and removed without locks. Everything here blocks.

The data of one SHA-256 has a folder, ``{root}/{digest of the tenant}/{SHA-256}``, with these files::

    {stamp}                    the data; a stamp is never used again:
                               {seconds}-{random}{check of the key that encrypts it}-{size of the file}
    {stamp}@{thread}@{seconds} a thread that may refer to it, and since when; holds the thread's names
    {stamp}!{seconds}-{random} the data is about to be removed

A writer writes its ``@`` file, then lists the folder, and uses the data only when no ``!`` file is there. A
sweeper writes its ``!`` file, then lists the folder, and removes the data only when no ``@`` file has come.
On a store that lists what was written, one of the two sees the other, so no message loses its data. The
clocks of all hosts must agree to within a minute.

`rekey` stores data again under another stamp, lets the same threads refer to that, and removes the file that
it replaces as a sweeper does. A reader or writer that still has the address of that file finds the other one
in the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

from agent_stores.backend import ThreadKey
from agent_stores.errors import AgentStoresError, AttachmentError

T = TypeVar("T")

_WRITING = 300.0
_READS = 3  # files that are tried, each removed while it was looked for
_RANDOM = 8  # hexadecimal digits of a stamp
_HEX = 32  # characters of the digest of a tenant or a thread


class Reference(NamedTuple):
    """An ``@`` file: a thread that may refer to the data, since a time in seconds."""

    file: str
    thread: str
    since: int


class Copy(NamedTuple):
    """The files of one stamp.

    Attributes:
        stamp: its name.
        exists: whether the data is there, whole.
        references: who may refer to it.
        deleting: its ``!`` files.
    """

    stamp: str
    exists: bool
    references: list[Reference]
    deleting: list[str]

    @property
    def made(self) -> int:
        """When it was made, in seconds."""
        return int(self.stamp.partition("-")[0])

    @property
    def check(self) -> str:
        """See `check_of`."""
        return check_of(self.stamp)


def check_of(stamp: str) -> str:
    """The beginning of the fingerprint of the key that encrypts a file; empty when none does."""
    return stamp.split("-")[1][_RANDOM:]


def digest(value: Any) -> str:
    """A digest of names, in hexadecimal."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:_HEX]


class Files:
    """The files of one place.

    Args:
        filesystem: fsspec's.
        root: the folder.
        grace: seconds during which a reference counts without a message.
    """

    def __init__(self, filesystem: Any, root: str, grace: float) -> None:
        self._fs = filesystem
        self._root = root
        self.grace = grace
        self.writing = min(grace, _WRITING)
        """Seconds during which a reference counts in an erasure: no write takes longer."""

    def folder(self, tenant: str | None, sha256: str) -> str:
        """The folder of some data."""
        return f"{self._root}/{digest([tenant])}/{sha256}"

    def folders(self, tenant: str | None = None, *, all_tenants: bool = False) -> list[str]:
        """The folders of a tenant's data, or of everybody's, in order."""
        tenants = [f"{self._root}/{digest([tenant])}"]
        if all_tenants:
            tenants = [f"{self._root}/{name}" for name, _ in self._list(self._root)]
        return [f"{folder}/{name}" for folder in tenants for name, _ in self._list(folder)]

    def put(self, key: ThreadKey, sha256: str, file: bytes, check: str) -> str:
        """Store data for a thread unless it is stored with the same key; returns the stamp.

        Args:
            key: the thread whose message will refer to it.
            sha256: the digest of the data.
            file: the data as it is stored.
            check: see `check_of`.
        """
        if (held := self.hold_stored(key, sha256, check, f"-{len(file)}")) is not None:
            return held
        folder = self.folder(key.tenant, sha256)
        stamp = f"{int(time.time())}-{secrets.token_hex(_RANDOM // 2)}{check}-{len(file)}"
        self._refer(key, folder, stamp)
        self._write(f"{folder}/{stamp}", file)
        return stamp

    def hold_stored(self, key: ThreadKey, sha256: str, check: str, ending: str = "") -> str | None:
        """Let a thread refer to data that a key encrypts; returns the stamp, None when it is not stored so.

        Args:
            key: the thread.
            sha256: the digest of the data.
            check: see `check_of`.
            ending: what the stamp ends with.
        """
        folder = self.folder(key.tenant, sha256)
        for copy in reversed(self.copies(folder)):
            if copy.check == check and copy.stamp.endswith(ending) and self.hold(key, folder, copy):
                return copy.stamp
        return None

    def hold_stamp(self, key: ThreadKey, sha256: str, stamp: str) -> bool:
        """See `hold`."""
        folder = self.folder(key.tenant, sha256)
        return any(each.stamp == stamp and self.hold(key, folder, each) for each in self.copies(folder))

    def hold(self, key: ThreadKey, folder: str, copy: Copy) -> bool:
        """Let a message of a thread refer to data; False when it is not there, or about to be removed."""
        if not copy.exists or copy.deleting:
            return False
        thread, now = digest(key), time.time()
        if any(each.thread == thread and each.since > now - self.writing / 2 for each in copy.references):
            return True
        self._refer(key, folder, copy.stamp)
        return any(
            each.stamp == copy.stamp and each.exists and not each.deleting for each in self.copies(folder)
        )

    def read(self, tenant: str | None, name: str) -> bytes | None:
        """The file of an attachment, or another one with the same data; None when there is none."""
        sha256, _, stamp = name.partition("/")
        folder = self.folder(tenant, sha256)
        for _ in range(_READS):
            with contextlib.suppress(FileNotFoundError):
                return bytes(self._do(self._fs.cat_file, f"{folder}/{stamp}"))
            others = [copy.stamp for copy in self.copies(folder) if copy.exists]
            if not others:
                break
            stamp = others[-1]
        return None

    def copies(self, folder: str) -> list[Copy]:
        """What a folder has, by stamp, the oldest first; files of other names are ignored."""
        found: dict[str, Copy] = {}
        for name, size in self._list(folder):
            stamp, kind, rest = name, "", ""
            for sign in "@!":
                if sign in name:
                    stamp, kind, rest = *name.split(sign, 1)[:1], sign, name.split(sign, 1)[1]
                    break
            parts = stamp.split("-")
            if len(parts) != 3 or not parts[0].isdecimal():
                continue
            copy = found.setdefault(stamp, Copy(stamp, False, [], []))
            if kind == "@":
                thread, _, since = rest.partition("@")
                copy.references.append(Reference(name, thread, int(since) if since.isdecimal() else 0))
            elif kind == "!":
                copy.deleting.append(name)
            else:
                # A file that is being written, on a file system that shows it, is shorter.
                found[stamp] = copy._replace(exists=str(size) == parts[2])
        return sorted(found.values(), key=lambda each: each.made)

    def thread_of(self, folder: str, reference: Reference) -> ThreadKey | None:
        """The thread of a reference; None when it was removed meanwhile."""
        try:
            tenant, thread_id = json.loads(self._do(self._fs.cat_file, f"{folder}/{reference.file}"))
        except FileNotFoundError:
            return None
        return ThreadKey(tenant, thread_id)

    def doom(self, folder: str, copy: Copy) -> tuple[str, Copy]:
        """Write a ``!`` file; returns its name and what the folder has then."""
        name = f"{copy.stamp}!{int(time.time())}-{secrets.token_hex(4)}"
        self._write(f"{folder}/{name}", b"")
        again = [each for each in self.copies(folder) if each.stamp == copy.stamp]
        return name, again[0] if again else copy

    def remove(self, folder: str, names: Collection[str]) -> None:
        """Remove files; those that are gone are no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._do(self._fs.rm_file, f"{folder}/{name}")
        if not self._list(folder):
            with contextlib.suppress(Exception):  # object stores have no folders
                self._fs.rmdir(folder)

    def _refer(self, key: ThreadKey, folder: str, stamp: str) -> None:
        name = f"{stamp}@{digest(key)}@{int(time.time())}"
        self._write(f"{folder}/{name}", json.dumps(key).encode())

    def _write(self, path: str, data: bytes) -> None:
        try:
            self._do(self._fs.pipe_file, path, data)
        except FileNotFoundError:  # where folders have to be made
            self._do(self._fs.makedirs, path.rpartition("/")[0], exist_ok=True)
            self._do(self._fs.pipe_file, path, data)

    def _list(self, folder: str) -> list[tuple[str, int]]:
        """The names and sizes of what is in a folder, in order."""
        with contextlib.suppress(Exception):
            self._fs.invalidate_cache(folder)
        try:
            found = self._do(self._fs.ls, folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = ((str(each["name"]).rstrip("/").rpartition("/")[2], each.get("size") or 0) for each in found)
        return sorted(each for each in names if each[0] and each[0] != folder.rpartition("/")[2])

    @staticmethod
    def _do(method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the file system; its errors, other than that something is missing, are ours then."""
        try:
            return method(*args, **kwargs)
        except (FileNotFoundError, NotADirectoryError, AgentStoresError):
            raise
        except Exception as error:
            raise AttachmentError(
                f"the file system of the attachments failed: {type(error).__name__}; no message was changed"
            ) from error
