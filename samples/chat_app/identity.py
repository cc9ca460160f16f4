"""Who is here. Replace this file by your own: the rest of the application asks `current_user` only.

THE WAY ``names`` IS A PLACEHOLDER: a name without a password is not authentication; whoever types a name is
that user. It is for trying things out. In front of real users set ``CHAT_APP_SIGN_IN`` to

- ``oidc``: Streamlit's own sign-in (`st.login`), with the ``[auth]`` section of its secrets file; or
- ``header:X-Forwarded-User``: a header that a proxy in front of the application sets after it authenticated
  the user. The application must not be reachable but through that proxy, which must drop the header where a
  client sends it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import people
from engine import Engine

_LONGEST_NAME = 40


@dataclass(frozen=True)
class User:
    """A user who signed in.

    Attributes:
        user_id: tells users apart.
        name: what is shown.
    """

    user_id: str
    name: str

    @property
    def tenant(self) -> str:
        """The tenant of the user's conversations: no other user's, whatever their ids."""
        return f"user:{self.user_id}"


def current_user(engine: Engine) -> User | None:
    """The user of this window; None when no user has signed in, and the page to do so is shown."""
    way = engine.settings.sign_in
    if way == "oidc":
        return _by_oidc()
    if way.startswith("header:"):
        return _by_header(way.removeprefix("header:").strip())
    user: User | None = st.session_state.get("user")
    if user is None:
        _ask_for_name(engine)
    return user


def sign_out(engine: Engine) -> None:
    """Forget the user of this window."""
    st.session_state.clear()
    st.query_params.clear()
    if engine.settings.sign_in == "oidc":
        st.logout()


def can_sign_out(engine: Engine) -> bool:
    """Whether signing out is this application's business; a proxy's is not."""
    return not engine.settings.sign_in.startswith("header:")


def _by_oidc() -> User | None:
    if st.user.is_logged_in:
        # A subject is unique to its issuer only.
        return User(f"{st.user.get('iss')} {st.user.get('sub')}", str(st.user.get("name") or "You"))
    with _card():
        st.button("Sign in", type="primary", on_click=st.login, width="stretch")
    return None


def _by_header(header: str) -> User | None:
    value = st.context.headers.get(header)
    if value:
        return User(value, value)
    st.error(f"The proxy in front of this application sent no {header}.", icon=":material/lock:")
    return None


def _ask_for_name(engine: Engine) -> None:
    with _card():
        with st.form("sign-in", border=False):
            name = st.text_input("Your name", max_chars=_LONGEST_NAME, placeholder="Alice")
            if st.form_submit_button("Continue", type="primary", width="stretch"):
                _enter(engine, name)
        known = engine.call(people.known(engine.log))
        if known:
            st.caption("Been here before")
            with st.container(horizontal=True, gap="small"):
                for user_id, shown in known:
                    if st.button(shown, key=f"person-{user_id}", icon=":material/person:"):
                        _enter(engine, shown)
        st.caption(
            ":material/info: A name without a password is **not authentication**: anybody can be anybody "
            "here. `identity.py` says how to sign in for real."
        )


def _enter(engine: Engine, name: str) -> None:
    name = " ".join(name.split())
    if not name:
        st.warning("Type a name first.", icon=":material/edit:")
        return
    user = User(unicodedata.normalize("NFKC", name).casefold(), name)
    engine.call(people.remember(engine.log, user.user_id, name))
    st.session_state["user"] = user
    st.rerun()


def _card() -> DeltaGenerator:
    """The middle of an otherwise empty page."""
    middle = st.columns([1, 2, 1])[1]
    with middle:
        st.space("large")
        st.markdown("## :material/forum: Chat")
        st.markdown("Conversations that last, whatever happens to this window.")
    return middle.container(border=True)
