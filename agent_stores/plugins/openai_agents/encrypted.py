"""`EncryptedSession`: the SDK's own, which does not delete what it cannot decrypt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.extensions.memory.encrypt_session import EncryptedSession as FrameworkEncryptedSession

from agent_stores.plugins.openai_agents.session import AgentStoresSession

if TYPE_CHECKING:
    from agents import TResponseInputItem


class EncryptedSession(FrameworkEncryptedSession):
    """The SDK's `EncryptedSession`, for a session of this library below it.

    `pop_item` raises ``cryptography.fernet.InvalidToken`` for an item that another key encrypted, and leaves
    it where it is; over other sessions the SDK deletes such items.
    """

    async def pop_item(self, **context: Any) -> TResponseInputItem | None:
        """Delete the newest item that has not expired, and return it; expired ones after it are deleted."""
        session: Any = self.underlying_session
        if not isinstance(session, AgentStoresSession):
            return await super().pop_item(**context)
        while (sealed := await session.pop_valid_item(self._check_key)) is not None:
            item = self._unwrap(sealed)
            if item is not None:
                return item
        return None

    def _check_key(self, item: Any) -> None:
        payload = item.get("payload") if item.get("__enc__") == 1 else None
        if isinstance(payload, str):
            self.cipher.extract_timestamp(payload.encode())
