"""What the application keeps of its users: their names, and the settings that their next conversation gets.

One thread of a tenant of the application's own, with one message for each user, whose id is the user's: so
adding a user twice adds one.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from about import About, about_from
from agent_stores import ChatMessage, ChatMessageStore, MessageLog, NotFoundError

_SHOWN = 12
_KEY = "chat_app"


async def remember(log: MessageLog, user_id: str, name: str) -> None:
    """Note that there is a user; does nothing for one who is known."""
    await _store(log).add_messages([_person(user_id, name, About())])


async def known(log: MessageLog) -> list[tuple[str, str]]:
    """Ids and names of users, those who came first in front; a handful of them."""
    found = []
    async for stored in _store(log).iter_messages(page_size=_SHOWN):
        found.append((stored.message.message_id or "", stored.message.text))
        if len(found) == _SHOWN:
            break
    return found


async def preferred(log: MessageLog, user_id: str) -> About:
    """The settings that a user's next conversation begins with."""
    person = await _store(log).get(user_id)
    return About() if person is None else about_from(person.additional_properties.get(_KEY) or {})


async def prefer(log: MessageLog, user_id: str, name: str, about: About) -> None:
    """Keep a user's settings for the next conversation."""
    person = _person(user_id, name, replace(about, title=""))
    try:
        await _store(log).replace(user_id, person)
    except NotFoundError:
        await _store(log).add_messages([person])


def _store(log: MessageLog) -> ChatMessageStore:
    return ChatMessageStore(log, tenant="chat_app", thread_id="people")


def _person(user_id: str, name: str, about: About) -> ChatMessage:
    return ChatMessage("system", name, message_id=user_id, additional_properties={_KEY: asdict(about)})
