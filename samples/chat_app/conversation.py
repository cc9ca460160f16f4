"""A conversation: its head, its messages, the answer being made, and the field for the next message."""

from __future__ import annotations

import time
from datetime import datetime

import streamlit as st

from agent_stores import ChatMessage
from head import head
from page import Page, problems_kept, problems_shown, remaining, show_problem
from runs import Run
from text import answered, plain
from threads import Conversation
from transcript import MODEL_AVATAR, USER_AVATAR, memory_list, transcript

_NEWEST = 60
_BEHIND_HIT = 10  # messages that are shown behind the one that a search led to
_WHILE_RUNNING = 0.4  # seconds between two looks at an answer that is being made
_WHILE_IDLE = 1.0  # seconds between two looks at what other windows did
_MARKED = 3.0  # seconds between two calls of the store for what is no new message: settings, edits, the end

SUGGESTIONS = (
    "Hello, my name is Alice",
    "What time is it in UTC?",
    "Summarise our conversation",
)


def conversation(page: Page, thread_id: str) -> None:
    """Draw the conversation that the URL names, if it is one of this user's."""
    run = page.engine.run_of(page.threads, thread_id)  # before what is stored, which it may become part of
    found = page.call(page.threads.open(thread_id))
    if found is None:
        _not_there(page)
        return
    is_running = run is not None and run.is_running
    head(page, found, is_running=is_running)
    added = page.engine.added(page.threads, thread_id, found.mark.position)  # before messages are read
    st.session_state["marked"] = (time.monotonic(), found.expires_at)
    newest: int = st.session_state.get("newest") or _NEWEST
    end = _end(found, is_running=is_running)
    messages, has_older = page.call(page.threads.read(thread_id, newest=newest, end=end))
    if has_older and st.button("Show earlier messages", type="tertiary", icon=":material/expand_less:"):
        st.session_state["newest"] = newest + 2 * _NEWEST
        st.rerun()
    if not messages and run is None:
        _welcome(page, found)
    transcript(messages, None if is_running else lambda message: _edit(page, found, message))
    if end is not None and st.button("Show the newest messages", icon=":material/expand_more:", key="to-end"):
        st.session_state["end"] = None
        st.rerun()
    is_shown = run is not None and run.message.message_id in {m.message.message_id for m in messages}
    if run is not None and not run.is_running:
        _after(page, run, is_shown=is_shown)
    every = _WHILE_RUNNING if is_running else _WHILE_IDLE
    st.fragment(_live, run_every=every)(page, found, added, run, is_running, is_shown)
    _unsent(page, thread_id, is_running=is_running)
    st.chat_input(
        "The answer is being made …" if is_running else "Message",
        disabled=is_running,
        key="composer",
        on_submit=_submitted,
        args=(page, thread_id),
    )


def _end(found: Conversation, *, is_running: bool) -> int | None:
    """The position of the last message to show, where a search led to an earlier one; None for the newest."""
    wanted = st.session_state.get("end")
    if wanted is None or is_running or found.mark.position - wanted < _NEWEST:
        return None
    return int(wanted) + _BEHIND_HIT


def _submitted(page: Page, thread_id: str) -> None:
    """Send what was typed.

    A callback, as it gets the text even where the field is disabled by now: another window may have asked
    since this one was drawn.
    """
    text = st.session_state.get("composer")
    if not text or not text.strip():
        return
    with problems_kept():
        page.engine.forget(page.threads, thread_id)
        st.session_state["end"] = None
        _send(page, thread_id, text)


def _send(page: Page, thread_id: str, text: str) -> None:
    """Ask, or keep the text: another window may have asked since this one was drawn."""
    is_sent = page.engine.ask(page.threads, thread_id, text, page.user.user_id)
    st.session_state["unsent"] = None if is_sent else (thread_id, text)


def _unsent(page: Page, thread_id: str, *, is_running: bool) -> None:
    """A message that could not be sent, as an answer was being made already."""
    kept, text = st.session_state.get("unsent") or ("", "")
    if kept != thread_id:
        return
    with st.container(key="unsent"):
        st.warning(
            f"**Not sent yet:** another window asked at the same time.  \n{plain(text)}",
            icon=":material/schedule_send:",
        )
        with st.container(horizontal=True), problems_shown():
            if st.button("Send it now", key="send-unsent", type="primary", disabled=is_running):
                page.engine.forget(page.threads, thread_id)
                _send(page, thread_id, text)
                st.rerun()
            if st.button("Do not send it", key="drop-unsent"):
                st.session_state["unsent"] = None
                st.rerun()


def _live(
    page: Page, drawn: Conversation, added: int, run: Run | None, was_running: bool, is_shown: bool
) -> None:
    """The part that changes by itself: the answer that is being made, or what other windows do.

    While an answer is made nothing is read but its run. Otherwise a watcher, which all windows share, tells
    whether there are new messages, and now and then one call of the store whether something else is new;
    then the whole page is drawn again.
    """
    with problems_shown():
        if run is not None and was_running:
            if not run.is_running:
                st.rerun()
            if not is_shown:  # else it was stored between two looks, and is drawn above
                _being_made(page, run)
            return
        if page.engine.run_of(page.threads, drawn.thread_id) is not run:
            st.rerun()
        if page.engine.added(page.threads, drawn.thread_id, drawn.mark.position) != added:
            st.rerun()
        marked_at, expires_at = st.session_state["marked"]
        if time.monotonic() > marked_at + _MARKED:
            mark, expires_at = page.call(page.threads.mark(drawn.thread_id))
            if mark != drawn.mark:
                st.rerun()
            st.session_state["marked"] = (time.monotonic(), expires_at)
        _lifetime(expires_at)


def _being_made(page: Page, run: Run) -> None:
    with st.chat_message("user", avatar=USER_AVATAR):
        st.markdown(plain(run.message.text))
    with st.chat_message("assistant", avatar=MODEL_AVATAR):
        if run.tools:
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(run.tools))
            st.caption(f":material/build: Called {names}")
        if run.text:
            st.markdown(f"{answered(run.text)} ▍")
        else:
            st.markdown(":gray[Thinking …]")
        memory_list(run.memories)
        if st.button("Stop", icon=":material/stop:", key="stop"):
            page.engine.stop(page.threads, run.thread_id)
            st.rerun()


def _lifetime(expires_at: datetime | None) -> None:
    if expires_at is not None:
        left = remaining(expires_at)
        with st.container(key="lifetime"):
            st.caption(f":material/timer: This conversation is gone in {left}, unless a message is added")


def _after(page: Page, run: Run, *, is_shown: bool) -> None:
    """What is left to say of a run that ended."""
    if run.state == "stopped" and not is_shown:
        _unanswered(run)
        st.info("Stopped before there was an answer. Nothing was added.", icon=":material/stop_circle:")
        _again(page, run)
    elif run.problem is not None:
        if not is_shown:
            _unanswered(run)
        show_problem(run.problem)
        _again(page, run)


def _unanswered(run: Run) -> None:
    with st.chat_message("user", avatar=USER_AVATAR):
        st.markdown(plain(run.message.text))


def _again(page: Page, run: Run) -> None:
    with st.container(horizontal=True), problems_shown():
        if st.button("Try again", icon=":material/refresh:", key="again", type="primary"):
            page.engine.ask_again(page.threads, run.thread_id, page.user.user_id)
            st.rerun()
        if st.button("Dismiss", key="dismiss"):
            page.engine.forget(page.threads, run.thread_id)
            st.rerun()


def _edit(page: Page, found: Conversation, message: ChatMessage) -> None:
    """The form that takes a message's place while it is edited."""
    text = st.text_area(
        "Your message", message.text, key=f"edited-{message.message_id}", label_visibility="collapsed"
    )
    st.caption("The new question goes to a branch. This conversation stays as it is.")
    with st.container(horizontal=True), problems_shown():
        if st.button("Ask in a branch", type="primary", icon=":material/call_split:", key="branch"):
            if text.strip():
                branch = page.call(page.threads.branch(found, message.message_id or ""))
                page.engine.ask(page.threads, branch, text, page.user.user_id)
                page.go(branch)
                st.rerun()
            st.warning("Type a message first.")
        if st.button("Cancel", key="cancel-edit"):
            st.session_state.pop("editing", None)
            st.rerun()


def _welcome(page: Page, found: Conversation) -> None:
    """What an empty conversation shows."""
    with st.container(key="welcome", horizontal_alignment="center"):
        st.markdown(f"### Hello, {plain(page.user.name)}", text_alignment="center")
        st.markdown(
            ":gray[Everything that is said here is kept: close the window, come back, go on.]",
            text_alignment="center",
        )
        with st.container(horizontal=True, horizontal_alignment="center"), problems_shown():
            for index, suggestion in enumerate(SUGGESTIONS):
                if st.button(suggestion, key=f"suggestion-{index}"):
                    page.engine.ask(page.threads, found.thread_id, suggestion, page.user.user_id)
                    st.rerun()


def _not_there(page: Page) -> None:
    """The URL names nothing of this user's; whether it is anybody else's is not said."""
    st.space("large")
    with st.container(border=True, key="not-there"):
        st.markdown("### :material/search_off: There is no such conversation")
        st.markdown("It was deleted, its time ran out, or it never was one of yours.")
        with problems_shown():
            if st.button("New conversation", key="new-instead", icon=":material/add:"):
                page.go(page.begin())
                st.rerun()
