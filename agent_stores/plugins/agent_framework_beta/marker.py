"""The state of a store on its way through the state of a thread.

The beta's thread keeps of a store's state only its messages, and a restored thread adds them to its store. So
the state goes as one message that says nothing, and holds the state among its additional properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_stores.errors import StateError
from agent_stores.plugins.agent_framework.installed import installed
from agent_stores.states import StateKey, sign_state, verify_state

_STATE = "agent_stores_state"
_STATE_TYPE = "chat_message_store_state"


def pack(state: Mapping[str, Any], key: StateKey | None) -> dict[str, Any]:
    """The state of a store as the framework carries it, signed where there is a key."""
    signed = dict(state) if key is None else sign_state(state, key)
    marker = installed().message(role="system", contents=[], additional_properties={_STATE: signed})
    return {"type": _STATE_TYPE, "messages": [marker.to_dict()]}


def unpack(state: Any, key: StateKey | None) -> dict[str, Any]:
    """The state of a store, verified, from what `pack` made and the framework carried.

    Raises:
        StateError: when it is none of ours.
        StateSignatureError: when its signature is missing, wrong, or cannot be verified without a key.
    """
    messages = state.get("messages") if isinstance(state, Mapping) else None
    if isinstance(messages, Sequence) and len(messages) == 1:
        found = marked(messages[0])
        if found is not None:
            return verify_state(found, key)
    raise StateError("the state must be what the serialize() of one of our stores returned")


def marked(message: Any) -> Mapping[str, Any] | None:
    """The state that a message holds, or None: the message is then one of the conversation."""
    fields: Mapping[str, Any] = message if isinstance(message, Mapping) else getattr(message, "__dict__", {})
    properties = fields.get("additional_properties")
    if not isinstance(properties, Mapping) or _STATE not in properties:
        return None
    found = properties[_STATE]
    if not isinstance(found, Mapping) or fields.get("contents"):
        raise StateError(f"a message has the additional property {_STATE!r}, and is not the state of a store")
    return found
