"""Appending, and reading the end of a thread: the two operations that must be fast.

PostgreSQL has a function for each. In it each statement sees what was committed before it began: the first
one waits for the thread's row, and the others count and trim afterwards. A single statement of common table
expressions sees the tables as of its own beginning, and trims too little when another client appends at the
same time. Functions have prepared plans, too, which no proxy between client and server loses.

MariaDB has a compound statement for the append, and SQLite a transaction (`HotPath.steps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

from agent_stores.backend import MAX_RUN, RECENT_REQUESTS, Row
from agent_stores.backends.sql.names import NAME_COLUMNS
from agent_stores.backends.sql.statements import (
    BEGIN,
    ROW_COLUMNS,
    Abort,
    Sql,
    Statement,
    Statements,
    Steps,
    expiry,
    row_values,
)

AT_ONCE = 50
"""The most rows that are inserted by one statement."""

_NEW = (
    f"({', '.join(NAME_COLUMNS)}, version, last_position, staged_position, messages, pinned, bytes, tokens, "
    "updated_us, ttl_refresh, ttl_explicit, recent, revision, metadata) "
    "VALUES ({}, 0, 0, 0, 0, 0, 0, 0, 0, 'write', 0, '', 0, '{{}}')"
)
_FOUND = (
    "id, last_position, messages - pinned AS unpinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent"
)
# Where a trim cuts: see `agent_stores.thread_updates.trim_index`. The names of values differ by dialect.
_UNPINNED = "SELECT m.position FROM {{messages}} m WHERE m.thread = {id} AND m.pinned = 0"
_TARGET = _UNPINNED + " ORDER BY m.position LIMIT 1 OFFSET {excess}"
_NEXT = _UNPINNED + " AND m.boundary = 1 AND m.position >= {target} ORDER BY m.position LIMIT 1"
_PREVIOUS = (
    "SELECT max(s.position) FROM (SELECT m.position, m.boundary FROM {{messages}} m WHERE m.thread = {id} "
    f"AND m.pinned = 0 AND m.position < {{target}} ORDER BY m.position DESC LIMIT {MAX_RUN}) AS s "
    "WHERE s.boundary = 1"
)

# Plans are made once for a connection, maybe while the tables are empty: they use the indexes in any case.
_SETTINGS = (
    "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off "
    "SET enable_sort = off"
)
_NAMES = {"id": "t.id", "excess": "t.unpinned + p_unpinned - p_most", "target": "v_target"}
_APPEND_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION {{append_v2}}(
  p_key bytea, p_request text, p_now bigint, p_expected bigint, p_most bigint, p_ttl double precision,
  p_refresh text, p_create boolean, p_tenant_key bytea, p_sort_key text, p_tenant text, p_thread_id text,
  p_added bigint, p_unpinned bigint, p_pinned bigint, p_bytes bigint, p_tokens bigint, p_first bigint,
  p_last bigint, p_rows text) RETURNS bigint LANGUAGE plpgsql {_SETTINGS} AS $$
DECLARE
  t record;
  v_target bigint;
  v_cut bigint;
  v_gone bigint := 0;
  v_bytes bigint := 0;
  v_tokens bigint := 0;
BEGIN
  SELECT {_FOUND} INTO t
  FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
  IF NOT FOUND THEN
    IF NOT p_create OR p_expected > 0 THEN RETURN NULL; END IF;
    INSERT INTO {{threads}} {_NEW.format("p_key, p_tenant_key, p_sort_key, p_tenant, p_thread_id")}
    ON CONFLICT (thread_key) DO NOTHING
    RETURNING {_FOUND} INTO t;
    IF NOT FOUND THEN RETURN NULL; END IF;
  ELSIF t.expires_us <= p_now OR p_expected <> t.last_position
    OR position(E'\\n' || p_request || E'\\n' IN E'\\n' || t.recent) > 0 THEN
    RETURN NULL;
  END IF;
  IF p_refresh IS NOT NULL AND t.ttl_explicit = 0
    AND (t.ttl IS DISTINCT FROM p_ttl OR t.ttl_refresh <> p_refresh) THEN
    t.ttl := p_ttl;
    t.ttl_refresh := p_refresh;
    t.expires_us := {expiry("postgresql", "p_ttl", "p_now")};
  ELSIF t.ttl_refresh <> 'never' THEN
    t.expires_us := {expiry("postgresql", "t.ttl", "p_now")};
  END IF;
  INSERT INTO {{messages}} (thread, {", ".join(ROW_COLUMNS)})
  SELECT t.id, t.last_position + r.n, r.i, r.l, r.b, r.c, r.p, r.s, r.t, r.u
  FROM json_to_recordset(p_rows::json)
    AS r(n bigint, i text, l text, b text, c smallint, p smallint, s bigint, t bigint, u bigint);
  IF t.unpinned + p_unpinned > p_most THEN
    v_target := ({_TARGET.format(**_NAMES)});
    v_cut := ({_NEXT.format(**_NAMES)});
    IF v_cut IS NULL THEN v_cut := ({_PREVIOUS.format(**_NAMES)}); END IF;
    WITH gone AS (DELETE FROM {{messages}} m WHERE m.thread = t.id AND m.pinned = 0
    AND m.position < coalesce(v_cut, v_target) RETURNING m.bytes, m.tokens)
    SELECT count(*), coalesce(sum(gone.bytes), 0), coalesce(sum(gone.tokens), 0)
    INTO v_gone, v_bytes, v_tokens FROM gone;
  END IF;
  UPDATE {{threads}} SET version = version + 1, last_position = t.last_position + p_added,
    messages = messages + p_added - v_gone, pinned = pinned + p_pinned, bytes = bytes + p_bytes - v_bytes,
    tokens = tokens + p_tokens - v_tokens, first_us = coalesce(first_us, p_first), last_us = p_last,
    updated_us = p_now, ttl = t.ttl, ttl_refresh = t.ttl_refresh, expires_us = t.expires_us,
    recent = CASE WHEN length(t.recent) - length(replace(t.recent, E'\\n', '')) >= {RECENT_REQUESTS}
      THEN substr(t.recent, position(E'\\n' IN t.recent) + 1) ELSE t.recent END || p_request || E'\\n'
  WHERE id = t.id;
  RETURN t.last_position + p_added;
END $$
"""

# Stable functions see the tables as the statement that calls them does: their statements see one moment.
_LATEST_POSTGRESQL = f"""
CREATE OR REPLACE FUNCTION {{latest_v2}}(p_key bytea, p_now bigint, p_limit bigint)
RETURNS TABLE (pos bigint, doc text, pin smallint, bound smallint /*type*/)
LANGUAGE plpgsql STABLE {_SETTINGS} AS $$
DECLARE
  t record;
BEGIN
  SELECT id, last_position, pinned, ttl_refresh, ttl INTO t FROM {{threads}}
  WHERE thread_key = p_key AND (expires_us IS NULL OR expires_us > p_now);
  IF NOT FOUND THEN RETURN; END IF;
  RETURN QUERY SELECT m.position, m.body, m.pinned, m.boundary /*id*/ FROM {{messages}} m
  WHERE m.thread = t.id AND m.pinned = 0 AND m.position <= t.last_position
  ORDER BY m.position DESC LIMIT p_limit;
  IF t.pinned > 0 THEN
    RETURN QUERY SELECT m.position, m.body, m.pinned, m.boundary /*id*/ FROM {{messages}} m
    WHERE m.thread = t.id AND m.pinned = 1 AND m.position <= t.last_position;
  END IF;
  IF t.ttl_refresh = 'read' AND t.ttl > 0 THEN
    RETURN QUERY SELECT 0::bigint, ''::text, 0::smallint, 0::smallint /*none*/;
  END IF;
END $$
"""

_LATEST_IDS_POSTGRESQL = (
    _LATEST_POSTGRESQL.replace("{latest_v2}", "{latest_ids_v1}")
    .replace("/*type*/", ", name text")
    .replace("/*none*/", ", ''::text")
    .replace("/*id*/", ", coalesce(m.long_id, m.message_id)::text")
)

FUNCTIONS = (_APPEND_POSTGRESQL, _LATEST_POSTGRESQL, _LATEST_IDS_POSTGRESQL)
"""What creates PostgreSQL's functions."""

_UTF8 = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_VARIABLES = {"id": "v_id", "excess": "v_excess", "target": "v_target"}
# One compound statement: a transaction in one round trip.
_APPEND_MARIADB = f"""
BEGIN NOT ATOMIC
  DECLARE v_id, v_last, v_unpinned, v_explicit, v_expires, v_excess, v_target, v_cut, v_result BIGINT;
  DECLARE v_gone, v_gone_bytes, v_gone_tokens BIGINT DEFAULT 0;
  DECLARE v_ttl DOUBLE;
  DECLARE v_refresh VARCHAR(8) {_UTF8};
  DECLARE v_recent LONGTEXT {_UTF8};
  DECLARE p_key BINARY(32) DEFAULT :key;
  DECLARE p_request TEXT {_UTF8} DEFAULT :request;
  DECLARE p_now BIGINT DEFAULT :now;
  DECLARE p_expected BIGINT DEFAULT :expected;
  DECLARE p_most BIGINT DEFAULT :most;
  DECLARE p_ttl DOUBLE DEFAULT :ttl;
  DECLARE p_refresh VARCHAR(8) {_UTF8} DEFAULT :refresh;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
  START TRANSACTION;
  work: BEGIN
    SELECT {_FOUND} INTO v_id, v_last, v_unpinned, v_ttl, v_refresh, v_explicit, v_expires, v_recent
    FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
    IF v_id IS NULL THEN
      IF NOT :create OR p_expected > 0 THEN LEAVE work; END IF;
      INSERT INTO {{threads}} {_NEW.format("p_key, :tenant_key, :sort_key, :tenant, :thread_id")};
      SET v_id = LAST_INSERT_ID(), v_last = 0, v_unpinned = 0, v_refresh = 'write', v_explicit = 0,
        v_recent = '';
    ELSEIF v_expires <= p_now OR p_expected <> v_last
      OR LOCATE(CONCAT('\\n', p_request, '\\n'), CONCAT('\\n', v_recent)) > 0 THEN
      LEAVE work;
    END IF;
    IF p_refresh IS NOT NULL AND v_explicit = 0 AND NOT (v_ttl <=> p_ttl AND v_refresh = p_refresh) THEN
      SET v_ttl = p_ttl, v_refresh = p_refresh, v_expires = {expiry("mariadb", "p_ttl", "p_now")};
    ELSEIF v_refresh <> 'never' THEN
      SET v_expires = {expiry("mariadb", "v_ttl", "p_now")};
    END IF;
    INSERT INTO {{messages}} (thread, {", ".join(ROW_COLUMNS)}) VALUES {{rows}};
    SET v_excess = v_unpinned + :unpinned - p_most;
    IF v_excess > 0 THEN
      {_TARGET.format(**_VARIABLES).replace(" FROM", " INTO v_target FROM", 1)};
      {_NEXT.format(**_VARIABLES).replace(" FROM", " INTO v_cut FROM", 1)};
      IF v_cut IS NULL THEN {_PREVIOUS.format(**_VARIABLES).replace(" FROM", " INTO v_cut FROM", 1)}; END IF;
      SET v_cut = COALESCE(v_cut, v_target);
      SELECT COUNT(*), COALESCE(SUM(bytes), 0), COALESCE(SUM(tokens), 0)
      INTO v_gone, v_gone_bytes, v_gone_tokens
      FROM {{messages}} WHERE thread = v_id AND pinned = 0 AND position < v_cut;
      DELETE FROM {{messages}} WHERE thread = v_id AND pinned = 0 AND position < v_cut;
    END IF;
    UPDATE {{threads}} SET version = version + 1, last_position = v_last + :added,
      messages = messages + :added - v_gone, pinned = pinned + :pinned, bytes = bytes + :bytes - v_gone_bytes,
      tokens = tokens + :tokens - v_gone_tokens, first_us = COALESCE(first_us, :first), last_us = :last,
      updated_us = p_now, ttl = v_ttl, ttl_refresh = v_refresh, expires_us = v_expires,
      recent = CONCAT(IF(LENGTH(v_recent) - LENGTH(REPLACE(v_recent, '\\n', '')) >= {RECENT_REQUESTS},
        SUBSTR(v_recent, LOCATE('\\n', v_recent) + 1), v_recent), p_request, '\\n')
    WHERE id = v_id;
    SET v_result = v_last + :added;
  END work;
  COMMIT;
  SELECT v_result;
END
"""

_VALUES = (
    "key request now expected most ttl refresh create tenant_key sort_key tenant thread_id added unpinned "
    "pinned bytes tokens first last".split()
)


class HotPath:
    """Appending to, and reading the end of, the threads of one database.

    Attributes:
        latest: reads the newest rows that are not pinned, and the pinned ones, by ``key``, ``now`` and
            ``limit``: position, body, pinned, boundary. A row at position 0 says that reads renew the
            time-to-live.
        latest_with_ids: the same, and then the message ids.
    """

    def __init__(self, statements: Statements) -> None:
        dialect, make = statements.dialect, statements.make
        self._insert = statements.insert
        self._values = f", ({statements.marks(len(ROW_COLUMNS) + 1)})"
        if dialect == "postgresql":
            self._call = statements.named(f"SELECT {{append_v2}}({statements.marks(20)})")
            self.latest = make("SELECT * FROM {latest_v2}(:key, :now, :limit)")
            self.latest_with_ids = make("SELECT * FROM {latest_ids_v1}(:key, :now, :limit)")
            return

        def positional(text: str) -> str:
            return statements.named(text).replace("?", statements.marks(1))

        self.latest = make(_latest(dialect))
        self.latest_with_ids = make(_latest(dialect, ids=True))
        if dialect == "mariadb":
            self._make = make
            return
        self._find = positional(f"SELECT {_FOUND} FROM {{threads}} WHERE thread_key = ?")
        self._create = positional(
            f"INSERT INTO {{threads}} {_NEW.format('?, ?, ?, ?, ?')} RETURNING {_FOUND}"
        )
        names = {"id": ":id", "excess": ":excess"}
        names["target"] = f"({_TARGET.format(**names)})"
        cut = f"coalesce(({_NEXT.format(**names)}), ({_PREVIOUS.format(**names)}), {names['target']})"
        trim = "DELETE FROM {messages} WHERE thread = :id AND pinned = 0 AND position < "
        self.trim = make(f"{trim}{cut} RETURNING bytes, tokens")
        update = (
            "UPDATE {{threads}} SET version = version + 1, last_position = ?, messages = messages + ?, "
            "pinned = pinned + ?, bytes = bytes + ?, tokens = tokens + ?, first_us = coalesce(first_us, ?), "
            "last_us = ?, updated_us = ?, recent = ?{} WHERE id = ?"
        )
        # SQLite writes an index anew for each of its columns that is set, even to the same value.
        self._update = positional(update.format(""))
        self._update_ttl = positional(update.format(", ttl = ?, ttl_refresh = ?, expires_us = ?"))

    def function(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Statement:
        """The call of PostgreSQL's function; returns the last position, or NULL for the general path."""
        records = [dict(zip("nilbcpstu", row_values(row, n), strict=True)) for n, row in enumerate(rows, 1)]
        return self._call, (*values, _encode(records).decode())

    def compound(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Statement:
        """MariaDB's compound statement; returns the last position, or NULL for the general path."""
        named: dict[str, Any] = dict(zip(_VALUES, values, strict=True))
        for n, row in enumerate(rows):
            named.update(zip((f"{name}_{n}" for name in ROW_COLUMNS), row_values(row, n + 1), strict=True))
        return self._compound(len(rows))(**named)

    @lru_cache(maxsize=64)  # noqa: B019 - it lives as long as its database
    def _compound(self, count: int) -> Sql:
        groups = [
            f"(v_id, v_last + :{', :'.join(f'{name}_{n}' for name in ROW_COLUMNS)})" for n in range(count)
        ]
        return self._make(_APPEND_MARIADB.replace("{rows}", ", ".join(groups)))

    def steps(self, values: tuple[Any, ...], rows: Sequence[Row]) -> Steps[int]:
        """The transaction of SQLite; `values` are those of the function, in its order."""
        key, request, now, expected, most, ttl, refresh, may_create = values[:8]
        added, unpinned, pinned, size, tokens, first, last = values[12:]
        yield BEGIN
        found = yield self._find, (key,)
        if not found:
            if not may_create or expected:
                raise Abort
            found = yield self._create, (key, *values[8:12])
        row_id, position, before, old_ttl, old_refresh, explicit, expires, recent = found[0]
        if (
            f"\n{request}\n" in f"\n{recent}"
            or (expected is not None and expected != position)
            or (expires is not None and expires <= now)
        ):
            raise Abort
        is_new = refresh is not None and not explicit and (old_ttl != ttl or old_refresh != refresh)
        if not is_new:
            ttl, refresh = old_ttl, old_refresh
        if is_new or refresh != "never":
            expires = None if ttl is None else now + round(ttl * 1_000_000)
        given = [(row_id, *row_values(row, position + n)) for n, row in enumerate(rows, 1)]
        if added <= AT_ONCE:
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
        changes = (position, added, pinned, size, tokens, first, last, now, f"{recent}{request}\n")
        if is_new or ttl is not None:
            yield self._update_ttl, (*changes, ttl, refresh, expires, row_id)
        else:
            yield self._update, (*changes, row_id)
        return int(position)


def _latest(dialect: str, *, ids: bool = False) -> str:
    """The statement of SQLite and MariaDB that reads the end of a thread."""
    # The thread is one row, found first: the messages come in the order of their index.
    indexed = "INDEXED BY ix_{messages}_pinned" if dialect == "sqlite" else ""
    alive = "WHERE t.thread_key = :key AND (t.expires_us IS NULL OR t.expires_us > :now)"
    ids_of_rows, no_id = (", coalesce(m.long_id, m.message_id) AS name", ", ''") if ids else ("", "")
    columns = f"m.position, m.body, m.pinned, m.boundary{ids_of_rows}"
    source = f"SELECT {columns} FROM {{threads}} t JOIN {{messages}} m"
    visible = "ON m.thread = t.id AND m.position <= t.last_position AND m.pinned"
    newest = f"({source} {visible} = 0 {alive} ORDER BY m.position DESC LIMIT :limit)"
    if dialect != "mariadb":  # which writes a subquery with bodies to a temporary table on disk
        newest = f"SELECT * FROM {newest} AS newest"
    return (
        f"{newest} UNION ALL {source} {indexed} {visible} = 1 {alive} AND t.pinned > 0 "
        f"UNION ALL SELECT 0, '', 0, 0{no_id} FROM {{threads}} t {alive} "
        "AND t.ttl_refresh = 'read' AND t.ttl > 0"
    )


_encode = msgspec.json.Encoder().encode
