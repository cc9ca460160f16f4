"""The state of a store on its way through the state of a thread.

The beta's thread keeps of a store's state only its messages, and a restored thread adds them to its store. So
the state goes as one message, among its additional properties. An agent without our stores restores it as a
message; the text of it says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores.errors import StateError
from agent_stores.plugins.agent_framework.compat import CONTENT, MESSAGE
from agent_stores.states import StateKey, sign_state, verify_state

_STATE = "agent_stores_state"
_STATE_TYPE = "chat_message_store_state"
_TEXT = (
    "This is not the conversation: its messages are kept by agent-stores. Restore the thread with an agent "
    "whose chat_message_store_factory is an agent_stores.agent_framework_beta.ChatMessageStoreFactory."
)


def pack(state: Mapping[str, Any], key: StateKey | None) -> dict[str, Any]:
    """The state of a store as the framework carries it, signed where there is a key."""
    signed = dict(state) if key is None else sign_state(state, key)
    text = CONTENT.from_text(_TEXT)
    marker = MESSAGE(role="system", contents=[text], additional_properties={_STATE: signed})
    return {"type": _STATE_TYPE, "messages": [marker.to_dict()]}


def unpack(state: Any, key: StateKey | None) -> dict[str, Any] | list[Any]:
    """The state of a store, verified, from what `pack` made and the framework carried.

    Returns:
        The state; or the messages, where the framework's own store wrote it, which keeps them there.

    Raises:
        StateError: when it is neither.
        StateSignatureError: when its signature is missing, wrong, or cannot be verified without a key.
    """
    messages = state.get("messages") if isinstance(state, Mapping) else None
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        found = [marked(message) for message in messages]
        if len(found) == 1 and found[0] is not None:
            return verify_state(found[0], key)
        if all(one is None for one in found):
            return [_message(message) for message in messages]
    raise StateError("the state must be what the serialize() of one of our stores returned")


def marked(message: Any) -> Mapping[str, Any] | None:
    """The state that a message holds, or None: the message is then one of the conversation."""
    fields: Mapping[str, Any] = message if isinstance(message, Mapping) else getattr(message, "__dict__", {})
    properties = fields.get("additional_properties")
    if not isinstance(properties, Mapping) or _STATE not in properties:
        return None
    contents = fields.get("contents") or ()
    texts = [one.get("text") if isinstance(one, Mapping) else one.text for one in contents]
    found = properties[_STATE]
    if not isinstance(found, Mapping) or texts not in ([], [_TEXT]):
        raise StateError(f"a message has the additional property {_STATE!r}, and is not the state of a store")
    return found


def _message(message: Any) -> Any:
    if isinstance(message, MESSAGE):
        return message
    try:
        return MESSAGE.from_dict({"role": message["role"], "contents": message["contents"], **message})
    except Exception as error:
        raise StateError(f"the state must hold messages of the framework, got another: {error!r}") from None
