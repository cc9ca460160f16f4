"""Whose memories: under which ids they are stored, and which partitions are searched.

mem0 keeps memories by entity. A memory that is stored with a user and an agent is found by the user's id and
by the agent's. A search by the agent's id alone therefore brings what every user told that agent, and so does
one by the application's: neither is done unless the caller asks for it with a ``search_`` argument.
"""

from __future__ import annotations

from typing import NamedTuple

from agent_stores import ArgumentError, ArgumentTypeError

Entities = dict[str, str]
"""Ids keyed by mem0's parameter names, for storing and searching: user_id, agent_id, app_id and run_id."""


class Scope(NamedTuple):
    """Ids by our names; None where there is none."""

    user_id: str | None = None
    agent_id: str | None = None
    application_id: str | None = None
    thread_id: str | None = None

    def entities(self) -> Entities:
        """The ids that are set, keyed by mem0's parameter names."""
        named = {
            "user_id": self.user_id,
            "agent_id": self.agent_id,
            "app_id": self.application_id,
            "run_id": self.thread_id,
        }
        return {name: value for name, value in named.items() if value is not None}

    def partitions(self) -> list[Entities]:
        """What is searched for exactly this scope: its user's memories, and its agent's, at once.

        The application and the thread narrow both of them; without a user and an agent they are a partition
        of their own.
        """
        narrow = Scope(application_id=self.application_id, thread_id=self.thread_id).entities()
        user = Scope(user_id=self.user_id).entities()
        agent = Scope(agent_id=self.agent_id).entities()
        owners = [owner for owner in (user, agent) if owner] or [{}]
        return [partition for owner in owners if (partition := {**owner, **narrow})]

    def private_scope(self) -> Scope:
        """What may be read back without asking: never what others stored under the same agent."""
        if self.user_id is None and self.thread_id is None:
            return Scope()
        return self._replace(agent_id=None)


def check_id(name: str, value: str | None) -> str | None:
    """An id that names exactly one entity.

    Raises:
        ArgumentTypeError: when it is not text.
        ArgumentError: when it is empty, ``*``, which mem0 takes for any, or begins or ends with white space,
            which mem0 strips, so that two ids would be one.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ArgumentTypeError(f"{name} must be a str, got {type(value).__name__}")
    if not value or value == "*" or value != value.strip():
        raise ArgumentError(
            f"{name} must be a non-empty str, not '*' (mem0 takes it for any), without white space at its "
            f"ends, got {value!r}"
        )
    return value
