"""A chat application for many users on one durable memory; `make app` runs it, docs/chat-app.md describes it.

This file puts the parts together: who is here (`identity`), the side bar, and a conversation or a search.
"""

from __future__ import annotations

import atexit
from pathlib import Path

import streamlit as st

from agent_stores import StoreUnavailableError
from conversation import conversation
from engine import Engine
from errors import explain
from identity import current_user
from page import Page, is_streamlits, problems_shown, show_problem
from searching import results
from settings import Settings, read_settings
from sidebar import sidebar
from style import apply_style, fold_side_bar
from text import plain
from threads import Threads

_AGAIN = 3.0  # seconds between two looks at a store that could not be reached
_ICON = Path(__file__).parent / "icon.svg"  # a file, as the icons' own names are fetched from elsewhere


@st.cache_resource(show_spinner="Starting …")
def engine_of(settings: Settings) -> Engine:
    """One engine for all windows of this process."""
    engine = Engine(settings)
    atexit.register(engine.close)
    return engine


def main() -> None:
    """Draw the page."""
    st.set_page_config(page_title="Chat", page_icon=str(_ICON), layout="centered")
    apply_style()
    with problems_shown():
        engine = engine_of(read_settings())
        try:
            _page(engine)
        except StoreUnavailableError as error:
            show_problem(explain(error))
            st.session_state["just-failed"] = True
            _look_again(engine)


def _page(engine: Engine) -> None:
    user = current_user(engine)
    if user is None:
        return
    page = Page(engine, user, Threads(engine.log, user.tenant))
    if st.session_state.pop("leave-search", False):
        st.session_state["search"] = ""
    sidebar(page)
    problem = st.session_state.pop("problem", None)
    if problem is not None:
        show_problem(problem)
    query = st.session_state.get("search", "").strip()
    if query:
        results(page, query)
    elif page.thread_id is not None:
        conversation(page, page.thread_id)
    else:
        _nothing_open(page)
    if st.session_state.pop("turned", False):
        fold_side_bar()


@st.fragment(run_every=_AGAIN)
def _look_again(engine: Engine) -> None:
    """Draw the page again when the store can be reached again."""
    if st.button("Try again", icon=":material/refresh:", key="look-again"):
        st.rerun()
    if st.session_state.pop("just-failed", False):
        return
    try:
        engine.call(Threads(engine.log, "probe").open("any"))
    except Exception as error:
        if is_streamlits(error):
            raise
        return
    st.rerun()


def _nothing_open(page: Page) -> None:
    st.space("large")
    with st.container(horizontal_alignment="center", key="welcome"):
        st.markdown(f"### Hello, {plain(page.user.name)}", text_alignment="center")
        st.markdown(":gray[Choose a conversation at the side, or begin a new one.]", text_alignment="center")
        if st.button("New conversation", type="primary", icon=":material/add:", key="begin"):
            page.go(page.begin())
            st.rerun()


main()
