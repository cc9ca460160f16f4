"""Statements, and the transactions that operations run them in.

Each statement is written once, in SQLAlchemy's language. SQLAlchemy runs it on borrowed engines and on
servers. On SQLite files of our own it is compiled once and then goes straight to `sqlite3`, as SQLAlchemy's
own work would cost several times what SQLite's does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import Connection, literal_column
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

ZERO: Any = literal_column("0")
ONE: Any = literal_column("1")
"""Constants as text. As values, they would keep a partial index from being used, and SQLite plans a statement
anew for each value of a column that such an index depends on."""

_dialect = sqlite.dialect()


class Statement:
    """A statement that is run many times.

    Its values and results are whole numbers, floats, text and bytes, which `sqlite3` takes and gives as they
    are.

    Args:
        clause: the statement; what changes is a `bindparam`.
        columns: of an INSERT or UPDATE, the columns that it sets to values of the same names.
    """

    def __init__(self, clause: Any, columns: Sequence[str] | None = None) -> None:
        self.clause = clause
        self._columns = columns

    @cached_property
    def text(self) -> str:
        """The statement in SQLite's language, with question marks for the values."""
        return str(self._compiled)

    @cached_property
    def arrange(self) -> Callable[[Mapping[str, Any]], Any]:
        """Puts values in the order of the question marks."""
        names = self._compiled.positiontup
        constants = {name: value for name, value in self._compiled.params.items() if value is not None}
        pick: Callable[[Mapping[str, Any]], Any] = lambda values: [values[name] for name in names]  # noqa: E731
        if len(names) > 1:
            pick = itemgetter(*names)  # the same, sooner
        if not constants.keys() & set(names):
            return pick
        return lambda values: pick({**constants, **values})

    @cached_property
    def _compiled(self) -> Any:
        return self.clause.compile(dialect=_dialect, column_keys=self._columns)


class Transaction:
    """What an operation runs its statements on: a connection, by SQLAlchemy.

    Args:
        conn: the connection; operations use it directly for statements that are put together as they go.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self._write = False

    @property
    def dbapi_connection(self) -> Any:
        """The driver's connection."""
        return self.conn.connection.dbapi_connection

    def begin(self, *, write: bool) -> None:
        """Begin; what writes on SQLite waits for the lock now, as later it could not."""
        self._write = write
        if write and self.conn.dialect.name == "sqlite":
            self.conn.exec_driver_sql("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make it lasting."""
        self.conn.commit()

    def restart(self) -> None:
        """Undo what was done, and begin anew."""
        self.conn.rollback()
        self.begin(write=self._write)

    def rows(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement; its rows, with the columns by place."""
        return self.conn.execute(statement.clause, values).all()

    def run(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement that has no rows."""
        self.conn.execute(statement.clause, values)

    def run_many(self, statement: Statement, many: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement that has no rows, once for each set of values."""
        self.conn.execute(statement.clause, many)


class DirectTransaction(Transaction):
    """A transaction on an SQLite file of our own; there is one object for each connection, for all its time.

    Raises SQLAlchemy's errors, as the other does.
    """

    def __init__(self, conn: Connection) -> None:
        super().__init__(conn)
        self._raw: Any = conn.connection.dbapi_connection
        self._driver: Any = conn.dialect.loaded_dbapi

    @property
    def dbapi_connection(self) -> Any:
        """The driver's connection."""
        return self._raw

    def begin(self, *, write: bool) -> None:
        """Begin to write; a statement that reads alone is its own transaction."""
        self._write = write
        if write:
            self._execute("BEGIN IMMEDIATE", ())

    def commit(self) -> None:
        """Make it lasting."""
        self._execute("COMMIT", ())

    def end(self) -> None:
        """Undo what was begun and not committed, so that the connection can be used again."""
        if self._raw.in_transaction:
            self._execute("ROLLBACK", ())
        if self.conn.in_transaction():  # SQLAlchemy's own idea of it
            self.conn.rollback()

    def restart(self) -> None:
        """Undo what was done, and begin anew."""
        self.end()
        self.begin(write=self._write)

    def rows(self, statement: Statement, values: Mapping[str, Any]) -> Sequence[Any]:
        """Run a statement; its rows, with the columns by place."""
        try:
            return cast("list[Any]", self._raw.execute(statement.text, statement.arrange(values)).fetchall())
        except self._driver.Error as error:
            raise self._wrapped(error) from error

    def run(self, statement: Statement, values: Mapping[str, Any]) -> None:
        """Run a statement that has no rows."""
        self._execute(statement.text, statement.arrange(values))

    def run_many(self, statement: Statement, many: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement that has no rows, once for each set of values."""
        try:
            self._raw.executemany(statement.text, list(map(statement.arrange, many)))
        except self._driver.Error as error:
            raise self._wrapped(error) from error

    def _execute(self, text: str, values: Sequence[Any]) -> None:
        try:
            self._raw.execute(text, values)
        except self._driver.Error as error:
            raise self._wrapped(error) from error

    def _wrapped(self, error: Exception) -> DBAPIError:
        kind = IntegrityError if isinstance(error, self._driver.IntegrityError) else DBAPIError
        return kind(None, None, error)
