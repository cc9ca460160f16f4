"""The side bar: the user, a search field, and the user's conversations."""

from __future__ import annotations

import streamlit as st

from about import About
from identity import can_sign_out, sign_out
from page import Page, ago, problems_kept, problems_shown, turned
from text import plain
from threads import Conversation

_PAGE = 20
_REFRESH = 5.0  # seconds


def sidebar(page: Page) -> None:
    """Draw the side bar."""
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", key="who"):
            st.markdown(f":material/account_circle: **{plain(page.user.name)}**")
            if can_sign_out(page.engine):
                st.button("Sign out", type="tertiary", key="sign-out", on_click=sign_out, args=(page.engine,))
        if st.button("New conversation", icon=":material/add:", type="primary", width="stretch", key="new"):
            with problems_shown():
                page.go(page.begin())
                st.rerun()
        st.text_input(
            "Search",
            key="search",
            placeholder="Search in all conversations",
            icon=":material/search:",
            label_visibility="collapsed",
            on_change=turned,
        )
        _conversations(page)
        with st.container(key="imports"), st.expander("Import", icon=":material/upload:"):
            _import(page)
        _footer(page)


@st.fragment(run_every=_REFRESH)
def _conversations(page: Page) -> None:
    """The list, brought up to date by itself, as another window may have changed it."""
    limit = st.session_state.get("listed", _PAGE)
    with problems_shown(), st.container(key="threads", gap=None):
        found, more = page.call(page.threads.listed(limit=limit))
        if not found:
            st.caption("No conversations yet. Begin one above.")
        for conversation in sorted(found, key=_age, reverse=True):
            _entry(page, conversation)
        if more and st.button("Show more", type="tertiary", key="more", width="stretch"):
            st.session_state["listed"] = limit + _PAGE
            st.rerun()


def _entry(page: Page, conversation: Conversation) -> None:
    is_open = conversation.thread_id == page.thread_id
    count = conversation.messages
    details = f"{count} message{'' if count == 1 else 's'} · {ago(conversation.last_at)}"
    label = f"{plain(_short(conversation.about))}  \n:small[:gray[{details}]]"
    if st.button(
        label,
        key=f"open-{conversation.thread_id}",
        type="secondary" if is_open else "tertiary",
        width="stretch",
    ):
        page.go(conversation.thread_id)
        st.rerun()


def _short(about: About) -> str:
    title = about.shown_title
    return title if len(title) <= 44 else f"{title[:43]}…"


def _age(conversation: Conversation) -> float:
    return conversation.last_at.timestamp() if conversation.last_at else 0.0


def _import(page: Page) -> None:
    files = st.session_state.setdefault("imports", 0)
    file = st.file_uploader(
        "A file that was exported here, or by `agent-stores export`",
        type=["jsonl"],
        key=f"import-{files}",
    )
    if file is None:
        return
    st.session_state["imports"] = files + 1  # an empty field, else the next drawing would import it again
    with problems_kept():
        ids = page.call_long(page.threads.import_file(file.getvalue()))
        if ids:
            page.go(ids[0])
        st.toast(f"{len(ids)} conversation{'' if len(ids) == 1 else 's'} imported")
    st.rerun()


def _footer(page: Page) -> None:
    engine = page.engine
    model = "Local test model, no key needed" if engine.local_model else plain(engine.model_name)
    memory = {"platform": "mem0", "local": "mem0 in this process"}.get(engine.settings.memory, "none")
    where = plain(engine.log.location)
    if engine.settings.is_default_store and engine.settings.sign_in == "names":
        where = plain(str(engine.settings.folder / "chat.db"))
    with st.container(key="footer"):
        st.caption(
            f":material/smart_toy: {model}  \n:material/database: {where}  \n"
            f":material/neurology: Memory: {memory}"
        )
