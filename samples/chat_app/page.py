"""What every part of a page needs: the engine, the user, the conversation of the URL, and problems."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import streamlit as st

import people
from about import About
from engine import Engine
from errors import Problem, explain
from identity import User
from threads import Threads

T = TypeVar("T")

_URL_KEY = "thread"
_LONG = 120.0  # seconds that a page waits for an import


@dataclass(frozen=True)
class Page:
    """One window of one user."""

    engine: Engine
    user: User
    threads: Threads

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """See `Engine.call`."""
        return self.engine.call(work)

    def call_long(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for what writes much; when it takes too long, some of it may be written."""
        return self.engine.call(work, patience=_LONG, may_be_written=True)

    @property
    def thread_id(self) -> str | None:
        """The conversation that the URL names: any text, as a user can edit it."""
        return st.query_params.get(_URL_KEY) or None

    def go(self, thread_id: str | None, *, to: int | None = None) -> None:
        """Turn to another conversation, or to none; ``to`` is the position of a message to show."""
        st.session_state.pop("editing", None)
        st.session_state.pop("newest", None)
        st.session_state["end"] = to
        st.session_state["leave-search"] = True  # the field can be emptied only before it is drawn again
        turned()
        if thread_id is None:
            st.query_params.clear()
        else:
            st.query_params[_URL_KEY] = thread_id

    def begin(self) -> str:
        """Begin a conversation with the settings that the user chose last."""
        about = self.call(people.preferred(self.engine.log, self.user.user_id))
        return self.call(self.threads.create(about))

    def prefer(self, about: About) -> None:
        """Keep settings for the user's next conversation."""
        self.call(people.prefer(self.engine.log, self.user.user_id, self.user.name, about))


def turned() -> None:
    """Say that the page shows something else than before, so that a side bar in front of it folds in."""
    st.session_state["turned"] = True


@contextmanager
def problems_shown() -> Iterator[None]:
    """Say what went wrong inside, in words; the page goes on."""
    try:
        yield
    except Exception as error:
        if is_streamlits(error):
            raise
        show_problem(explain(error))


def is_streamlits(error: Exception) -> bool:
    """Whether it is how Streamlit ends a script."""
    return type(error).__module__.startswith("streamlit")


def show_problem(problem: Problem) -> None:
    """Say what went wrong."""
    st.error(f"**{problem.title}**  \n{problem.advice}", icon=":material/error:")


@contextmanager
def problems_kept() -> Iterator[None]:
    """Say what went wrong inside when the page is shown next; for callbacks, which come before it."""
    try:
        yield
    except Exception as error:
        if is_streamlits(error):
            raise
        st.session_state["problem"] = explain(error)


def local_zone() -> timezone | ZoneInfo:
    """The browser's time zone."""
    name = st.context.timezone
    try:
        return ZoneInfo(name) if name else timezone.utc
    except (KeyError, ValueError):
        return timezone.utc


def ago(moment: datetime | None) -> str:
    """How long ago something was, in a few letters."""
    if moment is None:
        return ""
    passed = datetime.now(timezone.utc) - moment
    if passed < timedelta(minutes=1):
        return "just now"
    if passed < timedelta(hours=1):
        return f"{passed.seconds // 60} min ago"
    if passed < timedelta(days=1):
        return f"{passed.seconds // 3600} h ago"
    try:
        there = moment.astimezone(local_zone())
    except OverflowError:  # the first or last day of all, from a file
        there = moment
    return f"{there:%d %b}" if passed < timedelta(days=300) else f"{there:%d %b %Y}"


def remaining(until: datetime) -> str:
    """How long something still lives."""
    return duration(max(0, round((until - datetime.now(timezone.utc)).total_seconds())))


def duration(seconds: int) -> str:
    """Seconds in the two units that matter."""
    for unit, length, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= length:
            rest = seconds % length // part
            return f"{seconds // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
