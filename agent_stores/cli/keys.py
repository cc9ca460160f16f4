"""The keys of the command line: from the environment or a file, never from an argument, which others can see.

A JSON object; keys are 32 bytes in Base64::

    {"current": "2026-11", "keys": {"2026-11": "q83vEjRWeJC...="}, "allow_plaintext": true,
     "data_keys": {"store": "sqlite:///keys.db", "options": {}, "per": "tenant"}}

With ``data_keys`` the keys are master keys, which wrap the data keys that are in that store.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from agent_stores.errors import ArgumentError, NotFoundError
from agent_stores.urls import open_log

if TYPE_CHECKING:
    from agent_stores.encryption import Keys

VARIABLE = "AGENT_STORES_KEYS"
"""The environment variable that has the keys."""

FILE_VARIABLE = "AGENT_STORES_KEYS_FILE"
"""The environment variable that names a file with the keys."""


class _DataKeys(msgspec.Struct, forbid_unknown_fields=True):
    store: str
    options: dict[str, str] = {}
    per: Literal["tenant", "thread"] = "tenant"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    current: str
    keys: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    allow_plaintext: bool = True
    data_keys: _DataKeys | None = None


@contextlib.asynccontextmanager
async def given_keys() -> AsyncIterator[Keys | None]:
    """The keys that the environment gives; None when it gives none.

    Raises:
        ArgumentError: when they are malformed or cannot be read; never quotes them.
        NotFoundError: when there is no such file.
        MissingDependencyError: when `cryptography` is not installed; names the extra.
    """
    document = _document()
    if document is None:
        yield None
        return
    from agent_stores.encryption import DataKeys, KeyRing, LocalKeyService

    try:
        keys = {key_id: base64.b64decode(key, validate=True) for key_id, key in document.keys.items()}
    except (binascii.Error, ValueError):
        raise ArgumentError("keys must be in Base64") from None
    ring = KeyRing(keys, document.current, allow_plaintext=document.allow_plaintext)
    if document.data_keys is None:
        yield ring
        return
    log = open_log(document.data_keys.store, **document.data_keys.options)
    try:
        yield DataKeys(
            LocalKeyService(ring),
            log,
            per=document.data_keys.per,
            former=ring,
            allow_plaintext=document.allow_plaintext,
        )
    finally:
        await log.aclose()


def _document() -> _Document | None:
    text, name = os.environ.get(VARIABLE), os.environ.get(FILE_VARIABLE)
    if text and name:
        raise ArgumentError(f"{VARIABLE} and {FILE_VARIABLE} must not be given together")
    where = VARIABLE
    if name:
        where = f"the keys' file {name!r}"
        try:
            text = Path(name).read_text()
        except FileNotFoundError:
            raise NotFoundError(f"no such file: {name!r}, which {FILE_VARIABLE} names") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ArgumentError(f"{where} cannot be read: {reason}") from None
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=_Document)
    except msgspec.ValidationError as error:  # names the field, and never its value
        raise ArgumentError(f"{where} must be a JSON object of keys: {error}") from None
    except msgspec.DecodeError:
        raise ArgumentError(f"{where} must be a JSON object of keys, and is not JSON") from None
