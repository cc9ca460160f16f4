"""What a search in all of a user's conversations found."""

from __future__ import annotations

import streamlit as st

from page import Page, ago
from text import plain, snippet


def results(page: Page, query: str) -> None:
    """Draw the results of a search."""
    hits = page.call(page.threads.search(query))
    with st.container(key="head"), st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"#### Results for “{plain(query)}”", width="stretch")
        if st.button("Close", icon=":material/close:", key="close-search"):
            st.session_state["leave-search"] = True
            st.rerun()
    if hits.is_scan:
        rest = "" if hits.is_complete else " Not all of them were looked at."
        st.caption(
            f":material/info: This store has no index of words, so messages were read one by one.{rest}"
        )
    if not hits.found:
        st.markdown(":gray[Nothing was found. Words are compared whole.]")
    for index, (title, hit) in enumerate(hits.found):
        with st.container(border=True):
            who = "You" if hit.message.role == "user" else "Answer"
            st.caption(f"{who} in **{plain(title)}** · {ago(hit.message.created_at)}")
            st.markdown(plain(snippet(hit.message.text, query)))
            if st.button("Open", key=f"hit-{index}", type="tertiary", icon=":material/arrow_forward:"):
                page.go(hit.thread_id, to=hit.position)
                st.rerun()
