"""The state of sessions, users and applications, in the metadata of threads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from google.adk.sessions.state import State
from pydantic_core import PydanticSerializationError, to_jsonable_python

from agent_stores.listing import ThreadStats
from agent_stores.plugins.google_adk.parts import FRAMEWORK

logger = logging.getLogger("agent_stores")


class Deltas(NamedTuple):
    """Changes of state, by what they belong to; keys have no prefix.

    Attributes:
        app: of the application.
        user: of the user.
        session: of the session.
    """

    app: dict[str, Any]
    user: dict[str, Any]
    session: dict[str, Any]


def split(state: Mapping[str, Any] | None) -> Deltas:
    """Changes of state as they are stored: without what is temporary, and JSON-ready.

    What JSON cannot hold is replaced by its text, as ADK does, with a line in the log.
    """
    found = Deltas({}, {}, {})
    for key, value in _json(state or {}).items():
        if key.startswith(State.APP_PREFIX):
            found.app[key.removeprefix(State.APP_PREFIX)] = value
        elif key.startswith(State.USER_PREFIX):
            found.user[key.removeprefix(State.USER_PREFIX)] = value
        elif not key.startswith(State.TEMP_PREFIX):
            found.session[key] = value
    return found


def merged(app: Mapping[str, Any], user: Mapping[str, Any], session: Mapping[str, Any]) -> dict[str, Any]:
    """The state as a session shows it."""
    return {
        **session,
        **{State.APP_PREFIX + key: value for key, value in app.items()},
        **{State.USER_PREFIX + key: value for key, value in user.items()},
    }


def kept(stats: ThreadStats | None) -> dict[str, Any]:
    """What is kept of a session in its thread's metadata; empty where there is none."""
    found = None if stats is None else stats.metadata.get(FRAMEWORK)
    return found if isinstance(found, dict) else {}


def scoped(stats: ThreadStats | None) -> dict[str, Any]:
    """The state of a user or an application; each value is kept in an array, since null deletes a key."""
    metadata = {} if stats is None else stats.metadata
    return {key: value[0] for key, value in metadata.items() if isinstance(value, list)}


def _json(state: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", to_jsonable_python(dict(state)))
    except PydanticSerializationError as error:
        logger.warning("Google ADK: a value of the state is stored as its text: %s", error)
        return cast("dict[str, Any]", to_jsonable_python(dict(state), serialize_unknown=True))
