"""Changing a thread: each transaction replaces its head, on the condition that nobody else did meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agent_stores.log import ThreadKey
from agent_stores.stores.azure_tables import keys
from agent_stores.stores.azure_tables.calls import Call
from agent_stores.stores.azure_tables.failures import (
    ChangedError,
    LostError,
    MissingError,
    TakenError,
    unknown_error,
)
from agent_stores.stores.azure_tables.heads import (
    REMEMBERED,
    Stored,
    ThreadHead,
    head_entity,
    new_token,
    read_head,
)
from agent_stores.stores.azure_tables.transactions import Operation, pack

T = TypeVar("T")


async def load(call: Call, key: ThreadKey, *, known: bool = False) -> Stored | None:
    """A thread's head; None when there is none.

    Args:
        call: the operation.
        key: the thread.
        known: whether what this process knows will do: a write on it fails if it is no longer so.
    """
    if known:
        stored = call.server.heads.get(key)
        if stored is not None:
            return stored
    return take(call, key, await call.get(keys.thread_partition(key), keys.HEAD))


def take(call: Call, key: ThreadKey, entity: object) -> Stored | None:
    """A thread's head from its row, as it was just read."""
    if entity is None:
        call.server.heads.drop(key)
        return None
    stored = Stored(read_head(entity), entity.metadata["etag"], True)  # type: ignore[attr-defined]
    call.server.heads.put(key, stored.head, stored.version)
    return stored


async def live(call: Call, key: ThreadKey, now_us: int) -> Stored | None:
    """The head of a thread that is there, as it is now; None when there is none."""
    stored = await load(call, key)
    return stored if stored is not None and stored.head.is_live(now_us) else None


async def write(
    call: Call, key: ThreadKey, before: Stored | None, head: ThreadHead, operations: Sequence[Operation]
) -> Stored:
    """Replace a head and change other rows of its thread, in one transaction.

    Args:
        call: the operation.
        key: the thread.
        before: the head as it must still be; None when there must be none.
        head: the new one.
        operations: what else to do.

    Returns:
        The new head.

    Raises:
        ChangedError: when somebody else changed the head; nothing was written.
        TakenError, MissingError: when one of the other operations cannot be; nothing was written.
        OutcomeUnknownError: when it may or may not be stored, and that could not be found out.
    """
    token = new_token()
    head.remember(token)
    entity = head_entity(key, head)
    first = Operation("create", entity) if before is None else Operation("update", entity, before.version)
    heads = call.server.heads
    lost = False
    while True:
        heads.drop(key)
        try:
            versions = await call.submit([first, *operations])
        except LostError:
            lost = call.is_unknown = True
            await call.pause()
            found = await load(call, key)
        except (ChangedError, TakenError, MissingError) as error:
            found = await load(call, key) if lost else None
            if not lost or not _is_in(token, found):
                call.is_unknown = False
                if getattr(error, "index", 0) == 0:
                    raise ChangedError from error
                raise
        else:
            call.is_unknown = False
            heads.put(key, head, versions[0])
            return Stored(head, versions[0], True)
        if found is not None and _is_in(token, found):
            call.is_unknown = False
            return found
        if (None if found is None else found.version) == (None if before is None else before.version):
            continue  # not stored so far: the same again, of which only one can succeed
        if before is not None and (found is None or not _follows(before.head, found.head)):
            raise unknown_error(call.server.address.location)
        call.is_unknown = False
        raise ChangedError


async def write_parts(
    call: Call,
    key: ThreadKey,
    before: Stored | None,
    head: ThreadHead,
    operations: Sequence[Operation],
    *,
    staged: ThreadHead,
    final: Sequence[Operation] = (),
) -> Stored:
    """The same, in as many transactions as it takes; what the last one writes makes all of it show.

    Args:
        call: the operation.
        key: the thread.
        before: the head as it must still be.
        head: the new one.
        operations: what else to do, and does not show without the head.
        staged: the head to stand there meanwhile.
        final: what is to be done together with the head.
    """
    first = Operation("create", head_entity(key, head))
    packed = pack(operations, first)
    if final and len(pack([*packed[-1], *final], first)) > 1:
        packed.append([])
    packed[-1] = [*packed[-1], *final]
    for part in packed[:-1]:
        between = staged.copy()
        between.writes = [] if before is None else before.head.writes
        before = await write(call, key, before, between, part)
        call.progress()
    head.writes = [] if before is None else before.head.writes
    return await write(call, key, before, head, packed[-1])


async def change(
    call: Call,
    key: ThreadKey,
    attempt: Callable[[Stored | None], Awaitable[T]],
    *,
    known: bool = False,
) -> T:
    """Try a change until nobody else comes in between.

    Args:
        call: the operation.
        key: the thread.
        attempt: reads what it needs, and writes on the head that it is given; may raise `ChangedError`.
        known: whether the first attempt may take the head that this process knows.
    """
    async with call.turn(key):
        tries = 0
        while True:
            try:
                return await attempt(await load(call, key, known=known))
            except (ChangedError, TakenError, MissingError):
                call.server.heads.drop(key)
                known = False
                if tries:
                    await call.give_way(tries)
                tries += 1


def _is_in(token: str, stored: Stored | None) -> bool:
    return stored is not None and token in stored.head.writes


def _follows(before: ThreadHead, now: ThreadHead) -> bool:
    """Whether a head remembers all writes since another one."""
    return len(now.writes) < REMEMBERED or (bool(before.writes) and before.writes[-1] in now.writes)
