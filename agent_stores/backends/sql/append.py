"""Appending, and reading the end of a thread.

PostgreSQL has functions for both, MariaDB a compound statement for the append, and SQLite a transaction. In
all of them each statement sees what was committed before it began: the first one waits for the thread's row,
and the others count and trim afterwards. A single statement of common table expressions sees the tables as of
its own beginning, and trims too little when another client appends at the same time. Functions have prepared
plans, too, which no proxy between client and server loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from agent_stores.backend import MAX_RUN, RECENT_REQUESTS, Row
from agent_stores.backends.sql.statements import (
    ROW_COLUMNS,
    Abort,
    Sql,
    Statements,
    Steps,
    Values,
    expiry,
    row_values,
)

VALUES = tuple(
    "key request now expected most ttl refresh may_create tenant_key sort_key tenant thread_id added "
    "unpinned pinned bytes tokens first last".split()
)
"""The values of an append, before its rows. `refresh` is None without a time-to-live."""

_CHUNK = 50  # rows in one statement of SQLite
_NEW = (
    "(thread_key, tenant_key, sort_key, tenant, thread_id, version, last_position, staged_position, "
    "messages, pinned, bytes, tokens, updated_us, ttl_refresh, ttl_explicit, recent, revision, metadata) "
    "VALUES ({}, 0, 0, 0, 0, 0, 0, 0, 0, 'write', 0, '', 0, '{{}}')"
)
_FOUND = "id, last_position, messages - pinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent"
# Where a trim cuts: see `agent_stores.thread_updates.trim_index`. The names of values differ by dialect.
_UNPINNED = "SELECT m.position FROM {{messages}} m WHERE m.thread = {id} AND m.pinned = 0"
_TARGET = _UNPINNED + " ORDER BY m.position LIMIT 1 OFFSET {excess}"
_NEXT = _UNPINNED + " AND m.boundary = 1 AND m.position >= {target} ORDER BY m.position LIMIT 1"
_PREVIOUS = (
    "SELECT s.position FROM (SELECT m.position, m.boundary FROM {{messages}} m WHERE m.thread = {id} AND "
    f"m.pinned = 0 AND m.position < {{target}} ORDER BY m.position DESC LIMIT {MAX_RUN}) AS s "
    "WHERE s.boundary = 1 ORDER BY s.position DESC LIMIT 1"
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
  SELECT {_FOUND.replace("pinned,", "pinned AS unpinned,")} INTO t
  FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
  IF NOT FOUND THEN
    IF NOT p_create OR p_expected > 0 THEN RETURN NULL; END IF;
    INSERT INTO {{threads}} {_NEW.format("p_key, p_tenant_key, p_sort_key, p_tenant, p_thread_id")}
    ON CONFLICT (thread_key) DO NOTHING
    RETURNING {_FOUND.replace("pinned,", "pinned AS unpinned,")} INTO t;
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
RETURNS TABLE (pos bigint, doc text, pin smallint, bound smallint) LANGUAGE plpgsql STABLE {_SETTINGS} AS $$
DECLARE
  t record;
BEGIN
  SELECT id, last_position, pinned, ttl_refresh, ttl INTO t FROM {{threads}}
  WHERE thread_key = p_key AND (expires_us IS NULL OR expires_us > p_now);
  IF NOT FOUND THEN RETURN; END IF;
  RETURN QUERY SELECT m.position, m.body, m.pinned, m.boundary FROM {{messages}} m
  WHERE m.thread = t.id AND m.pinned = 0 AND m.position <= t.last_position
  ORDER BY m.position DESC LIMIT p_limit;
  IF t.pinned > 0 THEN
    RETURN QUERY SELECT m.position, m.body, m.pinned, m.boundary FROM {{messages}} m
    WHERE m.thread = t.id AND m.pinned = 1 AND m.position <= t.last_position;
  END IF;
  IF t.ttl_refresh = 'read' AND t.ttl > 0 THEN
    RETURN QUERY SELECT 0::bigint, ''::text, 0::smallint, 0::smallint;
  END IF;
END $$
"""

FUNCTIONS = (_APPEND_POSTGRESQL, _LATEST_POSTGRESQL)
"""What creates PostgreSQL's functions."""

_UTF8 = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_NAMES = {"id": "v_id", "excess": "v_excess", "target": "v_target"}
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
      IF NOT :may_create OR p_expected > 0 THEN LEAVE work; END IF;
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
      {_TARGET.format(**_NAMES).replace(" FROM", " INTO v_target FROM", 1)};
      {_NEXT.format(**_NAMES).replace(" FROM", " INTO v_cut FROM", 1)};
      IF v_cut IS NULL THEN {_PREVIOUS.format(**_NAMES).replace(" FROM", " INTO v_cut FROM", 1)}; END IF;
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


@lru_cache(maxsize=64)
def append_mariadb(statements: Statements, count: int) -> Sql:
    """The append of a number of rows, whose columns follow the values."""
    columns = [
        [f"r_{chr(97 + n % 26)}_{'x' * (n // 26)}_{name}" for name in ROW_COLUMNS] for n in range(count)
    ]
    groups = ", ".join(f"(v_id, v_last + :{', :'.join(names)})" for names in columns)
    order = (*VALUES, *(name for names in columns for name in names))
    return statements.make(_APPEND_MARIADB.replace("{rows}", groups), order)


def to_json(rows: Sequence[Row]) -> str:
    """Rows for PostgreSQL's function."""
    records = [dict(zip("nilbcpstu", row_values(row, at), strict=True)) for at, row in enumerate(rows, 1)]
    return _encode(records).decode()


_encode = msgspec.json.Encoder().encode


class SQLiteAppend:
    """An append as four statements; each costs less than one that does the work of two."""

    def __init__(self, statements: Statements) -> None:
        names = {"id": ":id", "excess": ":excess"}
        names["target"] = f"({_TARGET.format(**names)})"
        cut = f"coalesce(({_NEXT.format(**names)}), ({_PREVIOUS.format(**names)}), {names['target']})"
        make = statements.make
        self._insert = statements.insert
        self._find = make(f"SELECT {_FOUND} FROM {{threads}} WHERE thread_key = :key").text
        self._create = make(
            f"INSERT INTO {{threads}} {_NEW.format(':key, :tenant_key, :sort_key, :tenant, :thread_id')} "
            f"RETURNING {_FOUND}",
            VALUES,
        )
        self._trim = make(
            f"DELETE FROM {{messages}} WHERE thread = :id AND pinned = 0 AND position < {cut} "
            "RETURNING bytes, tokens",
            ("id", "excess"),
        )
        update = (
            "UPDATE {threads} SET version = version + 1, last_position = :last_position, "
            "messages = messages + :added, pinned = pinned + :pinned, bytes = bytes + :bytes, "
            "tokens = tokens + :tokens, first_us = coalesce(first_us, :first), last_us = :last, "
            "updated_us = :now, recent = :recent"
        )
        order = "last_position added pinned bytes tokens first last now recent id ttl refresh expires".split()
        # SQLite writes an index anew for each of its columns that is set, even to the same value.
        self._update = make(f"{update} WHERE id = :id", order)
        ttl = ", ttl = :ttl, ttl_refresh = :refresh, expires_us = :expires"
        self._update_ttl = make(f"{update}{ttl} WHERE id = :id", order)

    def steps(self, values: Values, rows: Sequence[Row]) -> Steps[int]:
        """The transaction; `values` are `VALUES`."""
        key, request, now, expected, most, ttl, refresh, may_create, *_ = values
        added, unpinned, pinned, size, tokens, first, last = values[12:]
        found = yield self._find, (key,)
        if not found:
            if not may_create or expected:
                raise Abort
            found = yield self._create.text, self._create.bind(values)
        row_id, position, before, old_ttl, old_refresh, explicit, expires, recent = found[0]
        is_known = f"\n{request}\n" in f"\n{recent}"
        if (
            is_known
            or (expected is not None and expected != position)
            or (expires is not None and expires <= now)
        ):
            raise Abort
        if refresh is None or explicit or (old_ttl, old_refresh) == (ttl, refresh):
            ttl, refresh = old_ttl, old_refresh
            if refresh != "never":
                expires = None if ttl is None else now + round(ttl * 1_000_000)
        else:
            expires = None if ttl is None else now + round(ttl * 1_000_000)
        for start in range(0, len(rows), _CHUNK):
            part: list[object] = []
            for row in rows[start : start + _CHUNK]:
                position += 1
                part.append(row_id)
                part += row_values(row, position)
            yield self._insert(len(part) // 10).text, tuple(part)
        if most is not None and before + unpinned > most:
            trim = self._trim
            for gone_size, gone_tokens in (yield trim.text, trim.bind((row_id, before + unpinned - most))):
                added -= 1
                size -= gone_size
                tokens -= gone_tokens
        if recent.count("\n") >= RECENT_REQUESTS:
            recent = recent[recent.index("\n") + 1 :]
        recent = f"{recent}{request}\n"
        update = self._update if ttl is old_ttl is None and refresh == old_refresh else self._update_ttl
        yield (
            update.text,
            update.bind(
                (
                    position,
                    added,
                    pinned,
                    size,
                    tokens,
                    first,
                    last,
                    now,
                    recent,
                    row_id,
                    ttl,
                    refresh,
                    expires,
                )
            ),
        )
        return int(position)
