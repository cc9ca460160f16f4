"""A little style beyond the theme, which is in `.streamlit/config.toml`: density, alignment, narrow screens."""

from __future__ import annotations

import streamlit as st

_CSS = """
<style>
.stMainBlockContainer { padding-top: 3.5rem; padding-bottom: 2rem; }
section[data-testid="stSidebar"] .stButton button { justify-content: flex-start; text-align: left; }
.st-key-threads button { padding: .35rem .6rem; min-height: 0; }
.st-key-threads button p { line-height: 1.35; overflow-wrap: anywhere; }
.st-key-head { border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent); }
.st-key-head h4 { padding: .2rem 0; overflow-wrap: anywhere; }
.st-key-footer { opacity: .85; overflow-wrap: anywhere; }
.stChatMessage { overflow-wrap: anywhere; }
</style>
"""


def apply_style() -> None:
    """Put the style into the page."""
    st.html(_CSS)
