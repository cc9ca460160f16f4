"""What the SDK's compaction session asks of a session that can replace its history in one step.

It finds these operations by name, as its own sessions have them, and falls back to clearing and adding where
they are missing, which loses what another process adds meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent_stores.errors import ConflictError
from agent_stores.messages import ChatMessage
from agent_stores.plugins.openai_agents.codec import Item, ResponsesItemCodec
from agent_stores.plugins.shown import newest, without
from agent_stores.store import ChatMessageStore

IsExpired = Callable[[Item], bool]


@dataclass(frozen=True)
class Snapshot:
    """The newest items, and their replacement.

    Attributes:
        items: the items, oldest first.
        complete: whether these are all that the session has.
        replace_suffix: replaces the items from an index on by others; False, when the session has changed.
    """

    items: list[Item]
    complete: bool
    replace_suffix: Callable[[int, Sequence[Item]], Awaitable[bool]]


async def take_snapshot(
    neutral: ChatMessageStore[ChatMessage],
    codec: ResponsesItemCodec,
    limit: int,
    is_expired: IsExpired | None,
) -> Snapshot:
    """The newest `limit` items, with their replacement.

    Args:
        neutral: the thread.
        codec: converts its messages.
        limit: how many items at most.
        is_expired: of the messages before the replaced ones, those at the beginning are dropped of which it
            says so.
    """
    position = (await neutral.stats()).last_position
    found = await newest(neutral, codec.items_of, limit + 1)
    complete, found = len(found) <= limit, found[-limit:] if limit > 0 else []

    async def replace_suffix(start: int, output: Sequence[Item]) -> bool:
        expected = [item.data for _, item in found[start:]]
        stats = await neutral.stats()
        stored = [one.message async for one in neutral.iter_messages()]
        # Messages that cannot be read are skipped, and would be lost.
        if not expected or stats.last_position != position or len(stored) != stats.messages:
            return False
        shown = [(index, item) for index, one in enumerate(stored) for item in codec.items_of(one)]
        replaced = shown[-len(expected) :]
        if [item.data for _, item in replaced] != expected:
            return False
        gone: dict[int, list[int]] = {}
        for index, item in replaced:
            gone.setdefault(index, []).extend(item.parts)
        rests = (
            without(one, gone[index], codec.items_of) if index in gone else one
            for index, one in enumerate(stored)
        )
        kept = [one for one in rests if one is not None]
        while kept and is_expired and (items := codec.from_chat_message(kept[0])):
            if not all(map(is_expired, items)):
                break
            del kept[0]
        try:
            await neutral.replace_all(
                [*kept, *map(codec.to_chat_message, output)], expected_position=position
            )
        except ConflictError:
            return False
        return True

    return Snapshot([item.data for _, item in found], complete, replace_suffix)


async def newest_position(neutral: ChatMessageStore[ChatMessage]) -> int:
    """The position of the newest message; 0 when there is none."""
    return max((one.position for one in await neutral.latest(1)), default=0)


async def replace_history(
    neutral: ChatMessageStore[ChatMessage], messages: Sequence[ChatMessage], until: int | None
) -> None:
    """Replace the history up to a position in one step; what came after it stays, after the new messages.

    Args:
        neutral: the thread.
        messages: the new ones.
        until: the position of the last message that is replaced, or 0; None replaces all.

    Raises:
        ConflictError: when that message is gone: another client replaced or deleted the history.
    """
    if until is None:
        await neutral.replace_all(messages)
        return
    while True:
        position = (await neutral.stats()).last_position
        since = [one async for one in neutral.iter_messages(after=max(until - 1, 0))]
        if until and (not since or since[0].position != until):
            raise ConflictError(
                "another client replaced or deleted the history since it was read for compaction; "
                "nothing was changed"
            )
        later = [one.message for one in since if one.position > until]
        try:
            await neutral.replace_all([*messages, *later], expected_position=position)
        except ConflictError:
            continue  # something was added meanwhile; it stays, too
        return
