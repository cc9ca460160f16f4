"""Appending, and reading the end of a thread: the two operations that must be fast.

PostgreSQL has a function for each. MariaDB appends by a compound statement with the same body. Each statement
in it has its own snapshot: the first waits for the thread's row lock, and the later ones see the rows that
were committed meanwhile. A single statement of common table expressions has one snapshot, and trims too
little under concurrency. A function also keeps its prepared plans when a proxy pools connections. SQLite
appends by a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from agent_stores.backend import MAX_RUN, RECENT_REQUESTS, Row
from agent_stores.backends.sql.names import NAME_COLUMNS
from agent_stores.backends.sql.statements import (
    BEGIN,
    LARGEST,
    MINUTE,
    ROW_COLUMNS,
    TEXT_TYPES,
    Abort,
    Statement,
    Statements,
    Steps,
    Work,
    fill,
    row_values,
)

_ROWS_PER_INSERT = 50

_NEW = f"""
INSERT INTO {{threads}} ({", ".join(NAME_COLUMNS)}, version, last_position, staged_position, messages, pinned,
bytes, tokens, updated_us, updated_minute, ttl_refresh, ttl_explicit, recent, revision, metadata)
VALUES ({{names}}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'write', 0, '', 0, '{{}}')"""
_FOUND = "id, last_position, messages - pinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent"
# Where a trim cuts: see `agent_stores.thread_updates.trim_index`.
_SOURCE = "FROM {messages} m WHERE m.pinned = 0 AND"
_TARGET = (
    f"SELECT m.{{place}} {{into_target}} {_SOURCE} {{all}} ORDER BY m.{{place}} LIMIT 1 OFFSET {{excess}}"
)
_NEXT = f"""SELECT m.{{place}} {{into_cut}} {_SOURCE} m.{{place}} >= {{target}} AND {{end}} AND m.boundary = 1
ORDER BY m.{{place}} LIMIT 1"""
_PREVIOUS = f"""SELECT max(s.{{place}}) {{into_cut}} FROM (SELECT m.{{place}}, m.boundary {_SOURCE} {{start}}
AND m.{{place}} < {{target}} ORDER BY m.{{place}} DESC LIMIT {MAX_RUN}) AS s WHERE s.boundary = 1"""

_PARAMETERS = (
    "p_key {digest}, p_request {text}, p_now bigint, p_expected bigint, p_most bigint, "
    "p_ttl double precision, p_refresh {text}, p_may_create boolean, p_tenant_key {digest}, "
    "p_sort_key {text}, p_tenant {text}, p_thread_id {text}, p_added bigint, p_unpinned bigint, "
    "p_pinned bigint, p_bytes bigint, p_tokens bigint, p_first bigint, p_last bigint"
).split(", ")
_VARIABLES = (
    "v_id bigint, v_last bigint, v_unpinned bigint, v_ttl double precision, v_refresh {text}, "
    "v_explicit bigint, v_expires bigint, v_recent {text}, v_excess bigint, v_target bigint, v_cut bigint, "
    "v_gone bigint, v_gone_bytes bigint, v_gone_tokens bigint, v_result bigint"
).split(", ")
_GONE = "FROM {messages} WHERE thread = v_id AND pinned = 0 AND position < v_cut"
# What PostgreSQL and MariaDB run. `{set}` assigns a variable; `{leave}` leaves the append to the fallback.
_PROCEDURE = f"""
  SELECT {_FOUND} INTO v_id, v_last, v_unpinned, v_ttl, v_refresh, v_explicit, v_expires, v_recent
  FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
  IF v_id IS NULL THEN
    IF NOT p_may_create OR p_expected > 0 THEN {{leave}}; END IF;
    {_NEW}{{created}};
    IF v_id IS NULL THEN {{leave}}; END IF;
    {{set}} v_last = 0; {{set}} v_unpinned = 0; {{set}} v_refresh = 'write'; {{set}} v_explicit = 0;
    {{set}} v_recent = '';
  ELSEIF v_expires <= p_now OR p_expected <> v_last
    OR POSITION(CONCAT('\n', p_request, '\n') IN CONCAT('\n', v_recent)) > 0 THEN
    {{leave}};
  END IF;
  IF p_refresh IS NOT NULL AND v_explicit = 0
    AND (v_refresh <> p_refresh OR COALESCE(v_ttl, -1) <> COALESCE(p_ttl, -1)) THEN
    {{set}} v_ttl = p_ttl; {{set}} v_refresh = p_refresh; {{set}} v_expires = p_now + ROUND(v_ttl * 1000000);
  ELSEIF v_refresh <> 'never' THEN
    {{set}} v_expires = p_now + ROUND(v_ttl * 1000000);
  END IF;
  INSERT INTO {{messages}} (thread, {", ".join(ROW_COLUMNS)}) {{rows}};
  {{set}} v_gone = 0; {{set}} v_gone_bytes = 0; {{set}} v_gone_tokens = 0;
  {{set}} v_excess = v_unpinned + p_unpinned - p_most;
  IF v_excess > 0 THEN
    {_TARGET};
    {_NEXT};
    IF v_cut IS NULL THEN {_PREVIOUS}; END IF;
    {{set}} v_cut = COALESCE(v_cut, v_target);
    SELECT COUNT(*), COALESCE(SUM(bytes), 0), COALESCE(SUM(tokens), 0)
    INTO v_gone, v_gone_bytes, v_gone_tokens {_GONE};
    DELETE {_GONE};
  END IF;
  UPDATE {{threads}} SET version = version + 1, last_position = v_last + p_added,
    messages = messages + p_added - v_gone, pinned = pinned + p_pinned,
    bytes = bytes + p_bytes - v_gone_bytes, tokens = tokens + p_tokens - v_gone_tokens,
    first_us = COALESCE(first_us, p_first), last_us = p_last,
    updated_us = p_now, updated_minute = p_now {{divide}} {MINUTE}, ttl = v_ttl, ttl_refresh = v_refresh,
    expires_us = v_expires, expires_minute = v_expires {{divide}} {MINUTE},
    recent = CONCAT(CASE WHEN LENGTH(v_recent) - LENGTH(REPLACE(v_recent, '\n', '')) >= {RECENT_REQUESTS}
      THEN SUBSTR(v_recent, POSITION('\n' IN v_recent) + 1) ELSE v_recent END, p_request, '\n')
  WHERE id = v_id;
  {{set}} v_result = v_last + p_added;
"""


def _procedure(dialect: str, wrapper: str, **parts: str) -> str:
    """The procedure in one dialect, within `wrapper`."""
    parts |= {"procedure": _PROCEDURE, "names": ", ".join(f"p_{name}" for name in NAME_COLUMNS[1:])}
    parts |= {"place": "position", "excess": "v_excess", "target": "v_target", "into_cut": "INTO v_cut"}
    parts |= {"names": f"p_key, {parts['names']}", "into_target": "INTO v_target", **TEXT_TYPES[dialect]}
    return fill(wrapper, **dict.fromkeys(("all", "start", "end"), "m.thread = v_id"), **parts)


# Plans are made once for a connection, maybe while the tables are empty: they use the indexes in any case.
_SETTINGS = (
    "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off "
    "SET enable_sort = off"
)
_APPEND_POSTGRESQL = _procedure(
    "postgresql",
    f"CREATE OR REPLACE FUNCTION {{append_v3}}({', '.join(_PARAMETERS)}, p_rows text) RETURNS bigint "
    f"LANGUAGE plpgsql {_SETTINGS} AS $$\nDECLARE {'; '.join(_VARIABLES)};\n"
    "BEGIN{procedure}  RETURN v_result;\nEND $$",
    set="",
    leave="RETURN NULL",
    created=" ON CONFLICT (thread_key) DO NOTHING RETURNING id INTO v_id",
    divide="/",
    rows="SELECT v_id, v_last + r.n, r.i, r.l, r.b, r.c, r.p, r.s, r.t, r.u "
    "FROM json_to_recordset(p_rows::json) AS r(n bigint, i text, l text, b text, c smallint, p smallint, "
    "s bigint, t bigint, u bigint)",
)


# Stable functions see the tables as the statement that calls them does: their statements see one moment.
def _latest_function(*, ids: bool) -> str:
    """The function that reads the end of a thread on PostgreSQL; with `ids`, message ids, too."""
    name, column, message_id, no_id = ("latest_v3", "", "", "")
    if ids:
        name, column = "latest_ids_v3", ", name text"
        message_id, no_id = ", coalesce(m.long_id, m.message_id)::text", ", ''::text"
    columns = f"m.position, m.body, m.pinned, m.boundary{message_id}"
    return f"""
CREATE OR REPLACE FUNCTION {{{name}}}(p_key bytea, p_now bigint, p_limit bigint)
RETURNS TABLE (pos bigint, doc text, pin smallint, bound smallint{column})
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


FUNCTIONS = (_APPEND_POSTGRESQL, _latest_function(ids=False), _latest_function(ids=True))
"""What creates PostgreSQL's functions."""

_APPEND_MARIADB = _procedure(
    "mariadb",
    "BEGIN NOT ATOMIC\n"
    + "".join(f"DECLARE {each} DEFAULT {{mark}};\n" for each in _PARAMETERS)
    + "".join(f"DECLARE {each};\n" for each in _VARIABLES)
    + "DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;\n"
    "START TRANSACTION;\nwork: BEGIN{procedure}  END work;\nCOMMIT;\nSELECT v_result;\nEND",
    set="SET",
    leave="LEAVE work",
    created="; SET v_id = LAST_INSERT_ID()",
    divide="DIV",
)


class HotPath:
    """Appending to, and reading the end of, the threads of one database.

    Args:
        statements: the statements of the database.
        largest: returns the largest body, in bytes, or None if unlimited.

    Attributes:
        latest: reads the newest rows that are not pinned, and the pinned ones, by ``key``, ``now`` and
            ``limit``: position, body, pinned, boundary. A row at position 0 says that reads renew the
            time-to-live.
        latest_with_ids: the same, and then the message ids.
        append: makes an append of the values of `_PARAMETERS` and the rows. Its result is one row with the
            last position; NULL, and None instead of it, leave the append to the log's fallback.
    """

    append: Callable[[tuple[Any, ...], Sequence[Row]], Work | None]

    def __init__(self, statements: Statements, largest: Callable[[], int | None]) -> None:
        make = statements.make
        self._statements, self._largest, self._mark = statements, largest, statements.marks(1)
        self._texts: dict[int, str] = {}  # MariaDB's, by the number of rows
        if statements.dialect == "postgresql":
            self._function = statements.named(f"SELECT {{append_v3}}({statements.marks(20)})")
            self.latest = make("SELECT * FROM {latest_v3}(:key, :now, :limit)")
            self.latest_with_ids = make("SELECT * FROM {latest_ids_v3}(:key, :now, :limit)")
            self.append = self._call
            return
        self.latest = make(_latest(statements))
        self.latest_with_ids = make(_latest(statements, ids=True))
        if statements.dialect == "mariadb":
            self.append = self._compose
            return
        self.append = lambda values, rows: partial(self._steps, values, rows)
        named = statements.named
        self._insert = statements.insert
        self._values = f", ({statements.marks(len(ROW_COLUMNS))})"
        self._find = named(f"SELECT {_FOUND}, updated_minute FROM {{threads}} WHERE thread_key = ?")
        self._create = named(f"{fill(_NEW, names='?, ?, ?, ?, ?')} RETURNING {_FOUND}, updated_minute")
        self._update = named(
            "UPDATE {threads} SET version = version + 1, last_position = ?, messages = messages + ?, "
            "pinned = pinned + ?, bytes = bytes + ?, tokens = tokens + ?, first_us = coalesce(first_us, ?), "
            "last_us = ?, updated_us = ?, recent = ?"
        )
        # SQLite searches by one bound from each side only.
        parts = {"start": f"m.id > :id * {LARGEST}", "end": f"m.id < (:id + 1) * {LARGEST}"}
        parts |= {"all": f"{parts['start']} AND {parts['end']}", "place": "id", "excess": ":excess"}
        parts |= {"into_target": "", "into_cut": ""}
        parts["target"] = fill(f"({_TARGET})", **parts)
        cut = fill(f"coalesce(({_NEXT}), ({_PREVIOUS}), {{target}})", **parts)
        where = f"id > :id * {LARGEST} AND id < {cut} AND pinned = 0"
        self.trim = make(f"DELETE FROM {{messages}} WHERE {where} RETURNING bytes, tokens")

    def _call(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Statement:
        """The call of PostgreSQL's function."""
        records = [dict(zip("nilbcpstu", row_values(row, n), strict=True)) for n, row in enumerate(rows, 1)]
        return self._function, (*values, _encode(records).decode())

    def _compose(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Statement | None:
        """MariaDB's compound statement; None for rows that do not fit into one packet."""
        if len(rows) > _ROWS_PER_INSERT or sum(row.bytes for row in rows) > (self._largest() or 0):
            return None
        text = self._texts.get(len(rows))
        if text is None:
            row = f"(v_id, v_last + {', '.join([self._mark] * len(ROW_COLUMNS))})"
            text = fill(_APPEND_MARIADB, mark=self._mark, rows=f"VALUES {', '.join([row] * len(rows))}")
            text = self._texts[len(rows)] = self._statements.named(text)
        given = (row_values(row, n) for n, row in enumerate(rows, 1))
        return text, (*values, *chain.from_iterable(given))

    def _steps(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Steps[list[tuple[int]]]:
        """The transaction of SQLite."""
        key, request, now, expected, most, ttl, refresh, may_create = values[:8]
        added, unpinned, pinned, size, tokens, first, last = values[12:]
        yield BEGIN
        found = yield self._find, (key,)
        if not found:
            if not may_create or expected:
                raise Abort
            found = yield self._create, (key, *values[8:12])
        row_id, position, before, old_ttl, old_refresh, explicit, old_expires, recent, old_minute = found[0]
        if (
            f"\n{request}\n" in f"\n{recent}"
            or (expected is not None and expected != position)
            or (old_expires is not None and old_expires <= now)
            or position + added >= LARGEST
        ):
            raise Abort
        is_new = refresh is not None and not explicit and (old_ttl != ttl or old_refresh != refresh)
        if not is_new:
            ttl, refresh = old_ttl, old_refresh
        expires = old_expires
        if is_new or refresh != "never":
            expires = None if ttl is None else now + round(ttl * 1_000_000)
        given = [row_values(row, n) for n, row in enumerate(rows, row_id * LARGEST + position + 1)]
        if added <= _ROWS_PER_INSERT:
            yield self._insert + self._values * (added - 1), tuple(chain.from_iterable(given))
        else:
            yield self._insert, given
        position += added
        if most is not None and before + unpinned > most:
            for gone_size, gone_tokens in (yield self.trim(id=row_id, excess=before + unpinned - most)):
                added -= 1
                size -= gone_size
                tokens -= gone_tokens
        if recent.count("\n") >= RECENT_REQUESTS:
            recent = recent[recent.index("\n") + 1 :]
        # SQLite writes an index anew for each of its columns that is set, even to the same value.
        more: dict[str, Any] = {}
        if old_minute != now // MINUTE:
            more["updated_minute"] = now // MINUTE
        if is_new or expires != old_expires:
            more |= {"ttl": ttl, "ttl_refresh": refresh, "expires_us": expires}
            minute = expires and expires // MINUTE
            if minute != (old_expires and old_expires // MINUTE):
                more["expires_minute"] = minute
        text = "".join([f", {name} = ?" for name in more])
        changes = (position, added, pinned, size, tokens, first, last, now, f"{recent}{request}\n")
        yield f"{self._update}{text} WHERE id = ?", (*changes, *more.values(), row_id)
        return [(position,)]


def _latest(statements: Statements, *, ids: bool = False) -> str:
    """The statement that reads the end of a thread on SQLite and MariaDB; PostgreSQL has functions for it."""
    # The thread is one row, found first: the messages come in the order of their index.
    indexed = "INDEXED BY ix_{messages}_pinned" if statements.dialect == "sqlite" else ""
    alive = "WHERE t.thread_key = :key AND (t.expires_us IS NULL OR t.expires_us > :now)"
    message_id, no_id = (", coalesce(m.long_id, m.message_id) AS name", ", ''") if ids else ("", "")
    columns = f"m.position, m.body, m.pinned, m.boundary{message_id}"
    source = f"SELECT {columns} FROM {{threads}} t JOIN {{messages}} m"
    of_thread = f"ON {statements.within('t.id')} AND m.pinned"
    newest = f"({source} {of_thread} = 0 {alive} ORDER BY m.{statements.place} DESC LIMIT :limit)"
    if statements.dialect != "mariadb":  # which writes a subquery with bodies to a temporary table on disk
        newest = f"SELECT * FROM {newest} AS newest"
    return (
        f"{newest} UNION ALL {source} {indexed} {of_thread} = 1 {alive} AND t.pinned > 0 "
        f"UNION ALL SELECT 0, '', 0, 0{no_id} FROM {{threads}} t {alive} "
        "AND t.ttl_refresh = 'read' AND t.ttl > 0"
    )


_encode = msgspec.json.Encoder().encode
