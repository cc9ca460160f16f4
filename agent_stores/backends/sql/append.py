"""Appending, and reading the end of a thread: the two operations that must be fast.

Where an append happens:

- PostgreSQL: on the server. One statement calls the function ``append_v5``, created with the tables.
- MariaDB: on the server. One compound statement is sent, with the whole program; nothing is created.
- SQLite: in this process, by a transaction of three statements, of four when it trims (`_steps`).

PostgreSQL and MariaDB run the same program, `_program`. Each of its statements sees what was committed before
it began: the first one waits for the thread's row, and the others count and trim afterwards. A single
statement of common table expressions sees the tables as of its own beginning, and trims too little when
another client appends at the same time. Functions have prepared plans, too, which no proxy loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import msgspec

from agent_stores.backend import MAX_RUN, RECENT_REQUESTS, Row
from agent_stores.backends.sql.names import NAME_COLUMNS
from agent_stores.backends.sql.statements import (
    LARGEST,
    MINUTE,
    STORED_COLUMNS,
    Abort,
    Statements,
    Steps,
    Work,
    row_values,
    rows_of,
)

_ROWS_PER_INSERT = 50

# What an append is made of, and the types on PostgreSQL.
_PARAMETERS = (
    "thread_key bytea, tenant_key bytea, sort_key text, tenant text, thread_id text, request text, "
    "now bigint, expected bigint, most bigint, ttl double precision, refresh text, may_create boolean, "
    "added bigint, unpinned bigint, pinned bigint, bytes bigint, tokens bigint, first bigint, last bigint, "
    "rows text"
).split(", ")

_CREATE = f"""INSERT INTO {{threads}} ({", ".join(NAME_COLUMNS)}, ttl, ttl_refresh, expires_us)
VALUES (:{", :".join(NAME_COLUMNS)}, :ttl, COALESCE(:refresh, 'write'), :now + ROUND(:ttl * 1000000))"""
# SQLite searches by one bound from each side only.
_LOW, _HIGH, _UNPINNED = "m.id > v_low", "m.id < v_high", "FROM {messages} m WHERE m.pinned = 0"
_TARGET = f"(SELECT m.id {_UNPINNED} AND {_LOW} AND {_HIGH} ORDER BY m.id LIMIT 1 OFFSET v_excess)"
_GONE = "FROM {messages} WHERE pinned = 0 AND id > v_low AND id <"
_CHANGE = """UPDATE {threads} SET version = version + 1, last_position = last_position + :added,
messages = messages + :unpinned + :pinned, pinned = pinned + :pinned, bytes = bytes + :bytes,
tokens = tokens + :tokens, first_us = COALESCE(first_us, :first), last_us = :last, updated_us = :now"""
# Where a trim cuts: see `agent_stores.thread_updates.trim_index`. The target is the first row that may stay.
_CUT = f"""COALESCE(
(SELECT m.id {_UNPINNED} AND m.id >= {_TARGET} AND {_HIGH} AND m.boundary = 1 ORDER BY m.id LIMIT 1),
(SELECT MAX(s.id) FROM (SELECT m.id, m.boundary {_UNPINNED} AND {_LOW} AND m.id < {_TARGET}
  ORDER BY m.id DESC LIMIT {MAX_RUN}) AS s WHERE s.boundary = 1),
{_TARGET})"""

# MariaDB sets columns one after the other: each expression has old values, or means the same with new ones.
_EXPIRES = "CASE WHEN ttl_refresh = 'never' THEN expires_us ELSE :now + ROUND(ttl * 1000000) END"
_UPDATE = f"""{_CHANGE}, expires_us = {_EXPIRES}, updated_minute = FLOOR(:now / {MINUTE}),
    expires_minute = FLOOR({_EXPIRES} / {MINUTE}),
    recent = CONCAT(CASE WHEN LENGTH(recent) - LENGTH(REPLACE(recent, '\n', '')) >= {RECENT_REQUESTS}
      THEN SUBSTR(recent, POSITION('\n' IN recent) + 1) ELSE recent END, :request, '\n')
  WHERE thread_key = :thread_key AND (expires_us IS NULL OR expires_us > :now)
    AND (:may_create OR last_position > 0)
    AND (:expected IS NULL OR last_position = :expected) AND last_position + :added < {LARGEST}
    AND (:refresh IS NULL OR ttl_explicit = 1
      OR (ttl_refresh = :refresh AND COALESCE(ttl, -1) = COALESCE(:ttl, -1)))
    AND POSITION(CONCAT('\n', :request, '\n') IN CONCAT('\n', recent)) = 0"""
_FOUND = f"""id, id * {LARGEST}, (id + 1) * {LARGEST}, last_position - :added, messages - pinned
  INTO v_id, v_low, v_high, v_last, v_unpinned"""


def _program(*, assign: str, update: str, on_conflict: str, leave: str, rows: str, scan: str = "") -> str:
    """What PostgreSQL and MariaDB run.

    `assign` begins an assignment. `update` runs `_UPDATE`, and sets variables by `_FOUND` if that found the
    thread. `on_conflict` says what happens when another client creates it, and `leave` leaves the append to
    the fallback. `rows` selects the rows, and `scan` may find where to trim.
    """
    return f"""
  {update};
  IF v_id IS NULL AND :may_create AND COALESCE(:expected, 0) = 0 THEN
    {_CREATE}{on_conflict};
    {update};
  END IF;
  IF v_id IS NULL THEN {leave}; END IF;
  INSERT INTO {{messages}} ({", ".join(STORED_COLUMNS)}) {rows};
  {assign} v_excess = v_unpinned - :most;
  IF v_excess > 0 THEN{scan}
    IF v_cut IS NULL THEN
      {assign} v_cut = {_CUT};
      SELECT COUNT(*), COALESCE(SUM(bytes), 0), COALESCE(SUM(tokens), 0)
      INTO v_gone, v_gone_bytes, v_gone_tokens {_GONE} v_cut;
    END IF;
    DELETE {_GONE} v_cut;
    UPDATE {{threads}} SET messages = messages - v_gone, bytes = bytes - v_gone_bytes,
      tokens = tokens - v_gone_tokens WHERE id = v_id;
  END IF;
  {assign} v_result = v_last + :added;
"""


_VARIABLES = (
    "v_id bigint, v_low bigint, v_high bigint, v_last bigint, v_unpinned bigint, "
    "v_excess bigint, v_cut bigint, "
    "v_gone bigint DEFAULT 0, v_gone_bytes bigint DEFAULT 0, v_gone_tokens bigint DEFAULT 0, v_result bigint"
)

_NAME = ", COALESCE(NULLIF(m.long_id, ''), m.message_id)"
_ALIVE = "thread_key = :key AND (expires_us IS NULL OR expires_us > :now)"


def _latest(name: str, body: str = "m.body", threads: str = "", alive: str = "") -> tuple[str, str]:
    """What reads the end of a thread: the newest rows that are not pinned, and the pinned ones.

    It selects a mark (see `SQLBackend.latest`), `body` and `name`, which is nothing or ``, _NAME``.
    `threads` and `alive` select the thread ``t``, where another statement did not.
    """
    mark = f"(m.id - m.thread * {LARGEST}) * 4 + m.pinned * 2 + m.boundary AS mark"
    rows = f"SELECT {mark}, {body}{name} FROM {threads}{{messages}} m WHERE {alive}"
    return (
        f"{rows}{rows_of('t.id')} AND m.pinned = 0 ORDER BY m.id DESC LIMIT :limit",
        f"{rows}m.thread = t.id AND m.pinned = 1",
    )


# A row with the mark 0 says that reads renew the time-to-live.
_RENEWS = "t.ttl_refresh = 'read' AND t.ttl > 0"


# -- PostgreSQL -------------------------------------------------------------------------------------------

# Plans are made once for a connection, maybe while the tables are empty: they use the indexes in any case.
_SETTINGS = "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off"
_ROWS = """SELECT v_low + v_last + r.n, r.i, r.l, r.b, r.c, r.p, r.s, r.t, r.u, v_id
FROM json_to_recordset(CAST(:rows AS json))
AS r(n bigint, i text, l text, b text, c smallint, p smallint, s bigint, t bigint, u bigint)"""
# Most trims remove a few rows. A loop over these costs less than the statements for all cases.
_SCAN = """
    FOR v_row IN SELECT id, bytes, tokens, boundary FROM {messages}
      WHERE pinned = 0 AND id > v_low AND id < v_high ORDER BY id
    LOOP
      IF v_gone >= v_excess AND v_row.boundary = 1 THEN v_cut = v_row.id; EXIT; END IF;
      v_gone = v_gone + 1;
      v_gone_bytes = v_gone_bytes + v_row.bytes;
      v_gone_tokens = v_gone_tokens + v_row.tokens;
    END LOOP;"""
_APPEND = f"""
CREATE OR REPLACE FUNCTION {{append_v5}}(
  p_{", p_".join(_PARAMETERS)}) RETURNS bigint
LANGUAGE plpgsql {_SETTINGS} AS $$
DECLARE {_VARIABLES.replace(",", ";")}; v_row record;
BEGIN{
    _program(
        assign="",
        update=f"{_UPDATE} RETURNING {_FOUND}",
        on_conflict=" ON CONFLICT (thread_key) DO NOTHING",
        leave="RETURN NULL",
        rows=_ROWS,
        scan=_SCAN,
    ).replace(":", "p_")
}  RETURN v_result;
END $$
"""
_CALL = f"SELECT {{append_v5}}(:{', :'.join(each.split()[0] for each in _PARAMETERS)})"


# Stable functions see the tables as the statement that calls them does: their statements see one moment.
def _latest_function(function: str, name: str) -> str:
    """The function that reads the end of a thread on PostgreSQL."""
    newest, pinned = (query.replace(":", "p_") for query in _latest(name))
    return f"""
CREATE OR REPLACE FUNCTION {{{function}}}(p_key bytea, p_now bigint, p_limit bigint)
RETURNS TABLE (mark bigint, doc text{name and ", name text"})
LANGUAGE plpgsql STABLE {_SETTINGS} AS $$
DECLARE
  t record;
BEGIN
  SELECT id, pinned, ttl_refresh, ttl INTO t FROM {{threads}} WHERE {_ALIVE.replace(":", "p_")};
  IF NOT FOUND THEN RETURN; END IF;
  RETURN QUERY {newest};
  IF t.pinned > 0 THEN RETURN QUERY {pinned}; END IF;
  IF {_RENEWS} THEN mark = 0; RETURN NEXT; END IF;
END $$
"""


FUNCTIONS = (_APPEND, _latest_function("latest_v5", ""), _latest_function("latest_ids_v5", _NAME))
"""What creates PostgreSQL's functions."""

# -- MariaDB ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=_ROWS_PER_INSERT)
def _compound(rows: int) -> str:
    """The statement that appends a number of rows, whose values are ``row_0`` and so on."""
    size = len(STORED_COLUMNS) - 1
    lines = (", ".join(f":row_{n + size * row}" for n in range(size)) for row in range(rows))
    program = _program(
        assign="SET",
        update=f"{_UPDATE};\nIF ROW_COUNT() > 0 THEN SELECT {_FOUND} FROM {{threads}} "
        "WHERE thread_key = :thread_key; END IF",
        on_conflict=" ON DUPLICATE KEY UPDATE id = id",
        leave="LEAVE work",
        rows=f"VALUES {', '.join(f'(v_low + v_last + {line}, v_id)' for line in lines)}",
    )
    return f"""BEGIN NOT ATOMIC
DECLARE {_VARIABLES.replace(",", "; DECLARE")};
DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
START TRANSACTION;
work: BEGIN{program}  END work;
COMMIT;
SELECT v_result;
END"""


# -- SQLite -----------------------------------------------------------------------------------------------

_STATE = """id, last_position, messages - pinned, recent, ttl, ttl_refresh, ttl_explicit, expires_us,
updated_minute, expires_minute"""
_FIND = f"SELECT {_STATE} FROM {{threads}} WHERE thread_key = :thread_key"
_MARKS = ", ".join("?" * len(STORED_COLUMNS))
_INSERT = f"INSERT INTO {{messages}} ({', '.join(STORED_COLUMNS)}) VALUES ({_MARKS})"
_TRIM = f"DELETE {_GONE} {_CUT} RETURNING bytes, tokens".replace("v_", ":v_")
_SET = f"{_CHANGE}, recent = :recent, expires_us = NULLIF(:expires, 0)"
_MINUTES = f"updated_minute = :now / {MINUTE}, expires_minute = NULLIF(:expires, 0) / {MINUTE}"
# SQLite writes an index anew for each of its columns that is set, even to the same value.
_UPDATES = {False: f"{_SET} WHERE id = :id", True: f"{_SET}, {_MINUTES} WHERE id = :id"}
"""What changes the thread, by whether one of its times is of another minute than before."""


def _steps(sql: Statements, values: dict[str, Any], rows: Sequence[Row]) -> Steps[list[tuple[int]]]:
    """The transaction of SQLite."""
    now, request, refresh = values["now"], values["request"], values["refresh"]
    found = yield sql(_FIND, values)
    if not found and values["may_create"]:
        found = yield sql(f"{_CREATE} RETURNING {_STATE}", values)
    if not found:
        raise Abort
    row_id, position, unpinned, recent, ttl, old_refresh, is_explicit, expires, *minutes = found[0]
    if (
        f"\n{request}\n" in f"\n{recent}"
        or (values["expected"] is not None and values["expected"] != position)
        or (expires is not None and expires <= now)
        or not (values["may_create"] or position)
        or (refresh is not None and not is_explicit and (ttl != values["ttl"] or old_refresh != refresh))
        or position + len(rows) >= LARGEST
    ):
        raise Abort
    if ttl is not None and old_refresh != "never":
        expires = now + round(ttl * 1_000_000)
    low = row_id * LARGEST
    given = [(*row_values(row, n), row_id) for n, row in enumerate(rows, low + position + 1)]
    insert, _ = sql.compile(_INSERT)
    if len(rows) <= _ROWS_PER_INSERT:
        yield insert + f", ({_MARKS})" * (len(rows) - 1), tuple(chain.from_iterable(given))
    else:
        yield insert, given
    gone: list[tuple[int, int]] = []
    excess = 0 if values["most"] is None else unpinned + values["unpinned"] - values["most"]
    if excess > 0:
        gone = yield sql(_TRIM, {"v_low": low, "v_high": low + LARGEST, "v_excess": excess})
    if recent.count("\n") >= RECENT_REQUESTS:
        recent = recent[recent.index("\n") + 1 :]
    changed = {
        **values,
        "id": row_id,
        "recent": f"{recent}{request}\n",
        "expires": expires or 0,
        "unpinned": values["unpinned"] - len(gone),
        "bytes": values["bytes"] - sum([size for size, _ in gone]),
        "tokens": values["tokens"] - sum([tokens for _, tokens in gone]),
    }
    yield sql(_UPDATES[minutes != [now // MINUTE, expires and expires // MINUTE]], changed)
    return [(position + len(rows),)]


# -- All ----------------------------------------------------------------------------------------------------


def append_work(
    sql: Statements, values: dict[str, Any], rows: Sequence[Row], largest: int | None
) -> Work | None:
    """What appends rows.

    Its result is one row with the last position; NULL, `Abort` and None instead of it leave the append to the
    fallback.

    Args:
        sql: makes the statements of the database.
        values: those of `_PARAMETERS`, by name.
        rows: in order.
        largest: the largest body that the database takes, in bytes.
    """
    if sql.dialect == "sqlite":
        return partial(_steps, sql, values, rows)
    given = [row_values(row, n) for n, row in enumerate(rows, 1)]
    if sql.dialect == "postgresql":
        records = [dict(zip("nilbcpstu", each, strict=True)) for each in given]
        return sql(_CALL, {**values, "rows": _encode(records).decode()})
    # MariaDB takes what fits into one packet.
    if len(rows) > _ROWS_PER_INSERT or values["bytes"] > (largest or 0):
        return None
    bound = {f"row_{n}": value for n, value in enumerate(chain.from_iterable(given))}
    return sql(_compound(len(rows)), {**values, **bound})


def latest_text(sql: Statements, *, ids: bool) -> str:
    """The statement that reads the end of a thread, with or without message ids: see `_latest`."""
    if sql.dialect == "postgresql":
        return f"SELECT * FROM {'{latest_ids_v5}' if ids else '{latest_v5}'}(:key, :now, :limit)"
    name = _NAME if ids else ""
    # The thread is one row, found first: the messages come in the order of their index.
    body = "CAST(m.body AS BLOB)" if sql.is_sqlite else "m.body"  # a text would be decoded, and encoded again
    newest, pinned = _latest(name, body, "{threads} t, ", f"{_ALIVE} AND ")
    if sql.is_sqlite:
        pinned = pinned.replace("{messages} m", "{messages} m INDEXED BY ix_{messages}_pinned")
    return f"""{sql.part.format(newest)} UNION ALL {pinned} AND t.pinned > 0
UNION ALL SELECT 0, ''{", NULL" if ids else ""} FROM {{threads}} t WHERE {_ALIVE} AND {_RENEWS}"""


_encode = msgspec.json.Encoder().encode
