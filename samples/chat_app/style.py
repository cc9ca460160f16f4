"""A little style beyond the theme, which is in `.streamlit/config.toml`: density, alignment, and phones."""

from __future__ import annotations

import uuid

import streamlit as st

_CSS = """
<style>
.stMainBlockContainer { padding-top: 4rem; padding-bottom: 2rem; }
.st-key-threads button { padding: .35rem .6rem; min-height: 0; }
.st-key-threads button, .st-key-threads button > div, .st-key-threads button span {
  justify-content: flex-start; text-align: left; width: 100%; }
.st-key-threads button p { line-height: 1.35; overflow-wrap: anywhere; }
[data-testid="stLayoutWrapper"]:has(> .st-key-head) {
  position: sticky; top: 3.75rem; z-index: 90; padding: .4rem 0 .5rem;
  background: light-dark(#ffffff, #111715);  /* the theme's backgroundColor */
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.stChatMessage [class*="st-key-edit-"] button { min-height: 0; padding: .15rem; opacity: .7; }
.st-key-head h4 { padding: .2rem 0; }
.st-key-head h4, .st-key-head h4 > span { display: block; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; }
.st-key-footer { opacity: .85; overflow-wrap: anywhere; }
.stChatMessage { overflow-wrap: anywhere; }
</style>
"""


def apply_style() -> None:
    """Put the style into the page."""
    st.html(_CSS)


# Streamlit lays the side bar over the page at this width, and does not fold it in by itself.
_FOLD = """
<script data-once="{once}">
if (window.innerWidth <= 768)
  document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
</script>
"""


def fold_side_bar() -> None:
    """On a phone, fold the side bar in, which covers what was chosen in it."""
    # A page that has the same element already does not run it again.
    st.html(_FOLD.format(once=uuid.uuid4().hex), unsafe_allow_javascript=True)
