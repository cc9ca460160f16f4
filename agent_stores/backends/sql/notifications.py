"""Notifications of changes on PostgreSQL: a trigger on the threads, and a connection that listens."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from agent_stores.backends.sql.errors import classify, translate_error

if TYPE_CHECKING:
    from agent_stores.backends.sql.postgresql import PostgresDatabase
    from agent_stores.backends.sql.statements import Steps

_EXISTS = "SELECT 1 FROM pg_trigger WHERE tgname = '{p}notify' AND tgrelid = to_regclass('{p}threads')"
_CREATE = (
    "CREATE OR REPLACE FUNCTION {p}notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify("
    "'agent_stores_' || md5('{p}' || encode(coalesce(NEW.thread_key, OLD.thread_key), 'hex')), ''); "
    "RETURN NULL; END $$",
    "CREATE TRIGGER {p}notify AFTER INSERT OR DELETE OR UPDATE OF version ON {p}threads "
    "FOR EACH ROW EXECUTE FUNCTION {p}notify()",
)


def has_trigger(prefix: str) -> Steps[bool]:
    """Whether the table of threads has the trigger."""
    return bool((yield _EXISTS.format(p=prefix), ()))


def create_trigger(prefix: str) -> Steps[None]:
    """Creates the trigger, in a transaction that holds the lock of the schema."""
    for text in _CREATE:
        yield text.format(p=prefix), ()


def channel_of(prefix: str, thread_key: bytes) -> str:
    """The channel of a thread, as the trigger names it."""
    name = f"{prefix}{thread_key.hex()}".encode()
    return f"agent_stores_{hashlib.md5(name, usedforsecurity=False).hexdigest()}"


class Listener:
    """A `Subscription` over a connection of its own."""

    def __init__(self, database: PostgresDatabase, connection: Any) -> None:
        self._database = database
        self._connection = connection

    @classmethod
    async def open(cls, database: PostgresDatabase, thread_key: bytes) -> Listener:
        """Listen to the changes of a thread."""
        connect: Any = database.driver.connect(database.arguments)
        try:
            connection: Any = await asyncio.wait_for(connect, database.config.timeout)
        except Exception as error:
            raise _translated(database, error) from None
        listener = cls(database, connection)
        try:
            await connection.listen(channel_of(database.config.table_prefix, thread_key))
        except BaseException as error:
            await listener.aclose()
            raise _translated(database, error) if isinstance(error, Exception) else error from None
        return listener

    async def wait(self, seconds: float) -> None:
        """See `Subscription.wait`."""
        try:
            await self._connection.wait_for_notification(seconds)
        except Exception as error:
            raise _translated(self._database, error) from None

    async def aclose(self) -> None:
        """See `Subscription.aclose`."""
        self._connection.close()


def _translated(database: PostgresDatabase, error: Exception) -> Exception:
    return translate_error(error, classify(error, database.dialect), database.config, False, False)
