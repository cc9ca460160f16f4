"""Appending, and reading the end of a thread: the two operations that must be fast.

Where an append happens:

- PostgreSQL: on the server. One statement calls the function ``append_v4``, created with the tables.
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
    ROW_COLUMNS,
    TYPES,
    Abort,
    Statements,
    Steps,
    Work,
    row_values,
)

_ROWS_PER_INSERT = 50

# What an append is made of, and the types on PostgreSQL.
_PARAMETERS = (
    "key bytea, request text, now bigint, expected bigint, most bigint, ttl double precision, refresh text, "
    "may_create boolean, tenant_key bytea, sort_key text, tenant text, thread_id text, added bigint, "
    "unpinned bigint, pinned bigint, bytes bigint, tokens bigint, first bigint, last bigint, rows text"
).split(", ")
_VARIABLES = (
    "v_id bigint, v_last bigint DEFAULT 0, v_unpinned bigint DEFAULT 0, v_ttl double precision, "
    "v_refresh {text}, v_explicit bigint DEFAULT 0, v_expires bigint, "
    "v_recent {text} DEFAULT '', v_excess bigint, v_target bigint, v_cut bigint, v_gone bigint DEFAULT 0, "
    "v_gone_bytes bigint DEFAULT 0, v_gone_tokens bigint DEFAULT 0, v_result bigint"
)
_FOUND = "id, last_position, messages - pinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent"
_INTO = "v_id, v_last, v_unpinned, v_ttl, v_refresh, v_explicit, v_expires, v_recent"
_CREATE = f"""INSERT INTO {{threads}} ({", ".join(NAME_COLUMNS)}, version, last_position,
messages, pinned, bytes, tokens, updated_us, updated_minute, ttl_explicit, revision, recent, metadata, ttl,
ttl_refresh) VALUES (:key, :tenant_key, :sort_key, :tenant, :thread_id{", 0" * 10}, '', '{{}}', :ttl,
coalesce(:refresh, 'write'))"""


def _program(*, assign: str, leave: str, created: str, divide: str, rows: str) -> str:
    """What PostgreSQL and MariaDB run. Where it cuts: see `agent_stores.thread_updates.trim_index`.

    `assign` begins an assignment, `leave` leaves the append to the fallback, `created` sets the variables
    after a thread was created, and `rows` selects the rows.
    """
    gone = "FROM {messages} WHERE thread = v_id AND pinned = 0 AND position < v_cut"
    unpinned = "FROM {messages} m WHERE m.thread = v_id AND m.pinned = 0"
    return f"""
  SELECT {_FOUND} INTO {_INTO} FROM {{threads}} WHERE thread_key = :key FOR UPDATE;
  IF v_id IS NULL THEN
    IF NOT :may_create OR :expected > 0 THEN {leave}; END IF;
    {_CREATE}{created};
    IF v_id IS NULL THEN {leave}; END IF;
    {assign} v_expires = :now + ROUND(v_ttl * 1000000);
  ELSEIF v_expires <= :now OR :expected <> v_last
    OR POSITION(CONCAT('\n', :request, '\n') IN CONCAT('\n', v_recent)) > 0
    OR (:refresh IS NOT NULL AND v_explicit = 0
      AND (v_refresh <> :refresh OR COALESCE(v_ttl, -1) <> COALESCE(:ttl, -1))) THEN
    {leave};
  END IF;
  IF v_refresh <> 'never' THEN
    {assign} v_expires = :now + ROUND(v_ttl * 1000000);
  END IF;
  INSERT INTO {{messages}} (thread, {", ".join(ROW_COLUMNS)}) {rows};
  {assign} v_excess = v_unpinned + :unpinned - :most;
  IF v_excess > 0 THEN
    SELECT m.position INTO v_target {unpinned} ORDER BY m.position LIMIT 1 OFFSET v_excess;
    SELECT m.position INTO v_cut {unpinned} AND m.position >= v_target AND m.boundary = 1
    ORDER BY m.position LIMIT 1;
    IF v_cut IS NULL THEN
      SELECT max(s.position) INTO v_cut FROM (SELECT m.position, m.boundary {unpinned}
      AND m.position < v_target ORDER BY m.position DESC LIMIT {MAX_RUN}) AS s WHERE s.boundary = 1;
    END IF;
    {assign} v_cut = COALESCE(v_cut, v_target);
    SELECT COUNT(*), COALESCE(SUM(bytes), 0), COALESCE(SUM(tokens), 0)
    INTO v_gone, v_gone_bytes, v_gone_tokens {gone};
    DELETE {gone};
  END IF;
  UPDATE {{threads}} SET version = version + 1, last_position = v_last + :added,
    messages = messages + :added - v_gone, pinned = pinned + :pinned,
    bytes = bytes + :bytes - v_gone_bytes, tokens = tokens + :tokens - v_gone_tokens,
    first_us = COALESCE(first_us, :first), last_us = :last,
    updated_us = :now, updated_minute = :now {divide} {MINUTE},
    expires_us = v_expires, expires_minute = v_expires {divide} {MINUTE},
    recent = CONCAT(CASE WHEN LENGTH(v_recent) - LENGTH(REPLACE(v_recent, '\n', '')) >= {RECENT_REQUESTS}
      THEN SUBSTR(v_recent, POSITION('\n' IN v_recent) + 1) ELSE v_recent END, :request, '\n')
  WHERE id = v_id;
  {assign} v_result = v_last + :added;
"""


# -- PostgreSQL -------------------------------------------------------------------------------------------

# Plans are made once for a connection, maybe while the tables are empty: they use the indexes in any case.
_SETTINGS = (
    "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off "
    "SET enable_sort = off"
)
_ROWS = """SELECT v_id, v_last + r.n, r.i, r.l, r.b, r.c, r.p, r.s, r.t, r.u
FROM json_to_recordset(CAST(:rows AS json))
AS r(n bigint, i text, l text, b text, c smallint, p smallint, s bigint, t bigint, u bigint)"""
_APPEND = f"""
CREATE OR REPLACE FUNCTION {{append_v4}}(
  p_{", p_".join(_PARAMETERS)}) RETURNS bigint
LANGUAGE plpgsql {_SETTINGS} AS $$
DECLARE {_VARIABLES.format(text="text").replace(",", ";")};
BEGIN{
    _program(
        assign="",
        leave="RETURN NULL",
        created=f" ON CONFLICT (thread_key) DO NOTHING RETURNING {_FOUND} INTO {_INTO}",
        divide="/",
        rows=_ROWS,
    ).replace(":", "p_")
}  RETURN v_result;
END $$
"""
_CALL = f"SELECT {{append_v4}}(:{', :'.join(each.split()[0] for each in _PARAMETERS)})"


# Stable functions see the tables as the statement that calls them does: their statements see one moment.
def _latest_function(name: str, *, ids: bool) -> str:
    """The function that reads the end of a thread on PostgreSQL; with `ids`, message ids, too."""
    message_id, no_id = (", coalesce(m.long_id, m.message_id)::text", ", ''::text") if ids else ("", "")
    columns = f"m.position, m.body, m.pinned, m.boundary{message_id}"
    return f"""
CREATE OR REPLACE FUNCTION {{{name}}}(p_key bytea, p_now bigint, p_limit bigint)
RETURNS TABLE (pos bigint, doc text, pin smallint, bound smallint{", name text" if ids else ""})
LANGUAGE plpgsql STABLE {_SETTINGS} AS $$
DECLARE
  t record;
BEGIN
  SELECT id, pinned, ttl_refresh, ttl INTO t FROM {{threads}}
  WHERE thread_key = p_key AND (expires_us IS NULL OR expires_us > p_now);
  IF NOT FOUND THEN RETURN; END IF;
  RETURN QUERY (SELECT {columns} FROM {{messages}} m
  WHERE m.thread = t.id AND m.pinned = 0 ORDER BY m.position DESC LIMIT p_limit)
  UNION ALL SELECT {columns} FROM {{messages}} m
  WHERE m.thread = t.id AND m.pinned = 1 AND t.pinned > 0
  UNION ALL SELECT 0, '', 0::smallint, 0::smallint{no_id} WHERE t.ttl_refresh = 'read' AND t.ttl > 0;
END $$
"""


FUNCTIONS = (_APPEND, _latest_function("latest_v4", ids=False), _latest_function("latest_ids_v4", ids=True))
"""What creates PostgreSQL's functions."""

# -- MariaDB ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=_ROWS_PER_INSERT)
def _compound(rows: int) -> str:
    """The statement that appends a number of rows, whose values are ``row_0`` and so on."""
    size = len(ROW_COLUMNS)
    lines = (", ".join(f":row_{n + size * row}" for n in range(size)) for row in range(rows))
    program = _program(
        assign="SET",
        leave="LEAVE work",
        created="; SET v_id = LAST_INSERT_ID(), v_ttl = :ttl, v_refresh = COALESCE(:refresh, 'write')",
        divide="DIV",
        rows=f"VALUES {', '.join(f'(v_id, v_last + {line})' for line in lines)}",
    )
    return f"""BEGIN NOT ATOMIC
DECLARE {_VARIABLES.format(text=TYPES["mariadb"][2]).replace(",", "; DECLARE")};
DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
START TRANSACTION;
work: BEGIN{program}  END work;
COMMIT;
SELECT v_result;
END"""


# -- SQLite -----------------------------------------------------------------------------------------------

_FIND = f"SELECT {_FOUND}, updated_minute FROM {{threads}} WHERE thread_key = :key"
_MARKS = f"({', '.join('?' * len(ROW_COLUMNS))})"
_INSERT = f"INSERT INTO {{messages}} (id, {', '.join(ROW_COLUMNS[1:])}) VALUES {_MARKS}"
_TARGET = """(SELECT m.id FROM {messages} m WHERE m.id > :first AND m.id < :end AND m.pinned = 0
ORDER BY m.id LIMIT 1 OFFSET :excess)"""
# SQLite searches by one bound from each side only.
TRIM = f"""
DELETE FROM {{messages}} WHERE id > :first AND pinned = 0 AND id < coalesce(
(SELECT m.id FROM {{messages}} m WHERE m.id >= {_TARGET} AND m.id < :end AND m.pinned = 0 AND m.boundary = 1
ORDER BY m.id LIMIT 1),
(SELECT max(s.id) FROM (SELECT m.id, m.boundary FROM {{messages}} m WHERE m.id > :first AND m.id < {_TARGET}
AND m.pinned = 0 ORDER BY m.id DESC LIMIT {MAX_RUN}) AS s WHERE s.boundary = 1),
{_TARGET}) RETURNING bytes, tokens"""
_UPDATE = """UPDATE {threads} SET version = version + 1, last_position = ?, messages = messages + ?,
pinned = pinned + ?, bytes = bytes + ?, tokens = tokens + ?, first_us = coalesce(first_us, ?), last_us = ?,
updated_us = ?, recent = ?"""


def _steps(sql: Statements, values: dict[str, Any], rows: Sequence[Row]) -> Steps[list[tuple[int]]]:
    """The transaction of SQLite."""
    now, ttl, refresh, request = values["now"], values["ttl"], values["refresh"], values["request"]
    found = yield sql(_FIND, values)
    if is_created := not found:
        if not values["may_create"] or values["expected"]:
            raise Abort
        found = yield sql(f"{_CREATE} RETURNING {_FOUND}, updated_minute", values)
    row_id, position, unpinned, old_ttl, old_refresh, explicit, old_expires, recent, old_minute = found[0]
    if (
        f"\n{request}\n" in f"\n{recent}"
        or (values["expected"] is not None and values["expected"] != position)
        or (old_expires is not None and old_expires <= now)
        or (refresh is not None and not explicit and (old_ttl != ttl or old_refresh != refresh))
        or position + len(rows) >= LARGEST
    ):
        raise Abort
    expires, first, end = old_expires, row_id * LARGEST, (row_id + 1) * LARGEST
    if is_created or old_refresh != "never":
        expires = None if old_ttl is None else now + round(old_ttl * 1_000_000)
    given = [row_values(row, n) for n, row in enumerate(rows, first + position + 1)]
    insert, _ = sql(_INSERT)
    if len(rows) <= _ROWS_PER_INSERT:
        yield insert + f", {_MARKS}" * (len(rows) - 1), tuple(chain.from_iterable(given))
    else:
        yield insert, given
    position += len(rows)
    added, size, tokens = len(rows), values["bytes"], values["tokens"]
    excess = 0 if values["most"] is None else unpinned + values["unpinned"] - values["most"]
    if excess > 0:
        for gone_size, gone_tokens in (yield sql(TRIM, {"first": first, "end": end, "excess": excess})):
            added -= 1
            size -= gone_size
            tokens -= gone_tokens
    if recent.count("\n") >= RECENT_REQUESTS:
        recent = recent[recent.index("\n") + 1 :]
    counts = (position, added, values["pinned"], size, tokens)
    changes = (*counts, values["first"], values["last"], now, f"{recent}{request}\n")
    # SQLite writes an index anew for each of its columns that is set, even to the same value.
    more: dict[str, Any] = {}
    if old_minute != now // MINUTE:
        more["updated_minute"] = now // MINUTE
    if expires != old_expires:
        more["expires_us"] = expires
        if (minute := expires and expires // MINUTE) != (old_expires and old_expires // MINUTE):
            more["expires_minute"] = minute
    text, _ = sql(f"{_UPDATE}{''.join([f', {name} = ?' for name in more])} WHERE id = ?")
    yield text, (*changes, *more.values(), row_id)
    return [(position,)]


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
    """The statement that reads the end of a thread, by ``key``, ``now`` and ``limit``.

    It selects the newest rows that are not pinned, and the pinned ones: position, body, pinned, boundary, and
    with `ids` the message id. A row at position 0 says that reads renew the time-to-live.
    """
    if sql.dialect == "postgresql":
        return f"SELECT * FROM {'{latest_ids_v4}' if ids else '{latest_v4}'}(:key, :now, :limit)"
    # The thread is one row, found first: the messages come in the order of their index.
    indexed = "INDEXED BY ix_{messages}_pinned" if sql.is_sqlite else ""
    alive = "WHERE t.thread_key = :key AND (t.expires_us IS NULL OR t.expires_us > :now)"
    message_id, no_id = (", coalesce(m.long_id, m.message_id) AS name", ", ''") if ids else ("", "")
    columns = f"m.position, m.body, m.pinned, m.boundary{message_id}"
    source = f"SELECT {columns} FROM {{threads}} t JOIN {{messages}} m"
    of_thread = f"ON {sql.within('t.id')} AND m.pinned"
    newest = f"({source} {of_thread} = 0 {alive} ORDER BY m.{sql.place} DESC LIMIT :limit)"
    if sql.is_sqlite:  # MariaDB writes a subquery with bodies to a temporary table on disk
        newest = f"SELECT * FROM {newest} AS newest"
    return (
        f"{newest} UNION ALL {source} {indexed} {of_thread} = 1 {alive} AND t.pinned > 0 "
        f"UNION ALL SELECT 0, '', 0, 0{no_id} FROM {{threads}} t {alive} "
        "AND t.ttl_refresh = 'read' AND t.ttl > 0"
    )


_encode = msgspec.json.Encoder().encode
