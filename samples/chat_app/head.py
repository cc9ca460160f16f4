"""The head of a conversation: title, cost of the next message, settings, and what can be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from about import OWN_STYLE, STYLES, About
from page import Page, duration, problems_kept, problems_shown
from text import plain
from threads import Conversation

ALL = "all"
HISTORY: tuple[int | str, ...] = (*range(1, 21), ALL)
LIFETIMES = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800, 2592000, 0)
"""Seconds to choose from; 0 stands for ever."""


def head(page: Page, found: Conversation, *, is_running: bool) -> None:
    """Draw the head."""
    with st.container(key="head"):
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.markdown(f"#### {plain(found.about.shown_title)}", width="stretch")
            with st.popover("", icon=":material/tune:", help="Settings", key=f"settings-{found.thread_id}"):
                _settings(page, found)
            with st.popover("", icon=":material/more_vert:", help="More", key=f"actions-{found.thread_id}"):
                _actions(page, found, is_running=is_running)
        _numbers(page, found)


def _numbers(page: Page, found: Conversation) -> None:
    sent, tokens = page.call(page.threads.sent(found))
    about = found.about
    style = about.style if about.style != OWN_STYLE else "own instructions"
    parts = (
        f":material/upload: sends {_amount(tokens, sent)}",
        f":material/forum: holds {_amount(found.tokens, found.messages)}",
        f":material/timer: kept {'for ever' if about.ttl is None else duration(about.ttl)}",
        f":material/psychology: {plain(style)}",
    )
    st.caption(" &nbsp; ".join(parts))


def _amount(tokens: int, messages: int) -> str:
    return f"**{tokens:,}** tokens in {messages} message{'' if messages == 1 else 's'}"


def _settings(page: Page, found: Conversation) -> None:
    """The conversation's settings, as they are stored.

    What is stored is a part of each field's key: when it changes, here or in another window, the field is
    another one, and begins with what is stored now.
    """
    about = found.about
    stamp = f"{found.thread_id}-{about.style}-{about.history}-{about.ttl}-{hash(about.own)}"
    keys = {name: f"{name}-{stamp}" for name in ("style", "own", "history", "ttl")}
    save: dict[str, Any] = {"on_change": _save, "args": (page, found, keys)}
    styles = [*STYLES, OWN_STYLE]
    st.selectbox("Instructions for the model", styles, styles.index(about.style), key=keys["style"], **save)
    if about.style == OWN_STYLE:
        st.text_area(
            "Own instructions",
            about.own,
            key=keys["own"],
            max_chars=4000,
            height=110,
            placeholder="You are …",
            **save,
        )
    else:
        st.caption(STYLES[about.style])
    st.select_slider(
        "History sent to the model, in messages",
        HISTORY,
        about.history if about.history in HISTORY else ALL,
        key=keys["history"],
        help="The newest messages. A tool's call and its result stay together.",
        **save,
    )
    ttl = about.ttl or 0
    st.select_slider(
        "Time-to-live after the last message, in seconds",
        LIFETIMES,
        ttl if ttl in LIFETIMES else min(LIFETIMES, key=lambda seconds: abs(seconds - ttl)),
        key=keys["ttl"],
        format_func=_lifetime,
        help="After so long without a new message the whole conversation is deleted.",
        **save,
    )
    st.caption("Your next conversation begins with these settings.")


def _save(page: Page, found: Conversation, keys: Mapping[str, str]) -> None:
    state = st.session_state
    history = state[keys["history"]]
    about = replace(
        found.about,
        style=state[keys["style"]],
        own=state.get(keys["own"], found.about.own),
        history=None if history == ALL else history,
        ttl=state[keys["ttl"]] or None,
    )
    with problems_kept():
        page.prefer(_keep(page, found, about))


def _keep(page: Page, found: Conversation, about: About) -> About:
    return page.call(page.threads.save(found.thread_id, about, before=found.about))


def _lifetime(seconds: int) -> str:
    if not seconds:
        return "for ever"
    return f"{seconds:,} s" + (f" ({duration(seconds)})" if seconds >= 60 else "")


def _actions(page: Page, found: Conversation, *, is_running: bool) -> None:
    key = f"title-{found.thread_id}-{found.about.title}"

    def rename() -> None:
        with problems_kept():
            _keep(page, found, replace(found.about, title=" ".join(st.session_state[key].split())[:80]))

    st.text_input("Title", found.about.title, key=key, max_chars=80, on_change=rename)
    with problems_shown():
        if st.button("Copy", icon=":material/content_copy:", width="stretch", key="copy"):
            page.go(page.call(page.threads.copy(found)))
            st.rerun()
        st.download_button(
            "Export",
            lambda: page.call(page.threads.export(found.thread_id)),
            file_name="conversation.jsonl",
            mime="application/jsonl",
            icon=":material/download:",
            width="stretch",
            key="export",
            on_click="ignore",
        )
        is_sure = st.checkbox("Delete it for good", key=f"sure-{found.thread_id}")
        if st.button("Delete", icon=":material/delete:", width="stretch", key="delete", disabled=not is_sure):
            if is_running:
                page.engine.stop(page.threads, found.thread_id)
            page.engine.forget(page.threads, found.thread_id)
            page.call(page.threads.delete(found.thread_id))
            page.go(None)
            st.rerun()
