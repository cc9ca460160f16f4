"""The messages of a conversation, as a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from agent_stores import ChatMessage, StoredMessage, ToolCallContent, ToolResultContent
from runs import APP
from text import answered, plain

USER_AVATAR = ":material/person:"
MODEL_AVATAR = ":material/smart_toy:"


def transcript(
    messages: Sequence[StoredMessage[ChatMessage]], edit: Callable[[ChatMessage], None] | None
) -> None:
    """Draw messages; a model's turn, with the tools that it called, is one block.

    Args:
        messages: oldest first.
        edit: draws the form to edit a message, in its place; None where nothing can be edited now.
    """
    turn: list[ChatMessage] = []
    for stored in messages:
        if stored.message.role in ("assistant", "tool"):
            turn.append(stored.message)
            continue
        _model_turn(turn)
        turn = []
        if stored.message.role == "user":
            _user_message(stored.message, edit)
        else:
            st.caption(f":material/info: {plain(stored.message.text)}")
    _model_turn(turn)


def memory_list(memories: Sequence[str]) -> None:
    """The memories that an answer used."""
    if memories:
        count = f"{len(memories)} memor{'y' if len(memories) == 1 else 'ies'} used"
        with st.expander(count, icon=":material/neurology:"):
            st.markdown("\n".join(f"- {plain(memory)}" for memory in memories))


def _user_message(message: ChatMessage, edit: Callable[[ChatMessage], None] | None) -> None:
    with st.chat_message("user", avatar=USER_AVATAR):
        if edit is not None and st.session_state.get("editing") == message.message_id:
            edit(message)
            return
        with st.container(horizontal=True, vertical_alignment="top", wrap=False):
            st.markdown(plain(message.text) or "*(no text)*", width="stretch")
            if edit is not None and st.button(
                "",
                icon=":material/edit:",
                type="tertiary",
                key=f"edit-{message.message_id}",
                help="Edit and ask again, in a branch; this conversation stays as it is",
            ):
                st.session_state["editing"] = message.message_id
                st.rerun()


def _model_turn(turn: Sequence[ChatMessage]) -> None:
    if not turn:
        return
    results = {part.call_id: part for message in turn for part in message.tool_results}
    with st.chat_message("assistant", avatar=MODEL_AVATAR):
        for message in turn:
            if message.role == "tool":
                continue
            if message.text:
                st.markdown(answered(message.text))
            for call in message.tool_calls:
                _tool_call(call, results.get(call.call_id))
            _notes(message)


def _tool_call(call: ToolCallContent, result: ToolResultContent | None) -> None:
    with st.expander(f"Called `{call.name}`", icon=":material/build:"):
        st.code(str(call.arguments), language=None, wrap_lines=True)
        if result is None:
            st.caption("No result was recorded.")
        else:
            st.code(result.result_text(), language=None, wrap_lines=True)


def _notes(message: ChatMessage) -> None:
    """What the application noted with an answer; it may come from a file, so nothing is taken as it is."""
    noted = message.additional_properties.get(APP)
    if not isinstance(noted, dict):
        return
    if noted.get("stopped") is True:
        st.caption(":material/stop_circle: Stopped here")
    memories = noted.get("memories")
    if isinstance(memories, list):
        memory_list([str(memory) for memory in memories])
