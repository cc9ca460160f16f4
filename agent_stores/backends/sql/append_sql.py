"""Appending, and reading the end of a thread, as one call each: a text per dialect.

PostgreSQL has functions for both, and MariaDB a compound statement for the append. There, as in a transaction,
each statement sees what was committed before it began: it waits for the thread's row first, and counts and
trims afterwards. A single statement of common table expressions sees the table as of its own beginning, and
would trim too little when another client appends at the same time. Functions have prepared plans, too, which
no proxy between client and server can lose.
"""

from __future__ import annotations

from functools import lru_cache

from agent_stores.backend import MAX_RUN, RECENT_REQUESTS
from agent_stores.backends.sql.statements import ROW_COLUMNS, Sql, Statements, expiry, letters

VALUES = (
    "key",
    "request",
    "now",
    "expected",
    "most",
    "ttl",
    "refresh",
    "may_create",
    "tenant_key",
    "sort_key",
    "tenant",
    "thread_id",
    "added",
    "unpinned",
    "pinned",
    "bytes",
    "tokens",
    "first",
    "last",
)
"""The values of an append, before its rows. `refresh` is None without a time-to-live."""

# -- PostgreSQL ---------------------------------------------------------------------------------------------

_SETTINGS = (
    "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off "
    "SET enable_sort = off"
)
"""Plans are made once for a connection, maybe while the tables are empty: they use the indexes in any case."""

_RECORDS = (
    "json_to_recordset({rows}::json) AS r(n bigint, i text, l text, b text, c smallint, p smallint, s bigint, "
    "t bigint, u bigint)"
)
RECORD_COLUMNS = "r.n, r.i, r.l, r.b, r.c, r.p, r.s, r.t, r.u"
"""The columns of `records`, in the order of `ROW_COLUMNS`."""

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
  SELECT id, last_position, messages - pinned AS unpinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent
  INTO t FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
  IF NOT FOUND THEN
    IF NOT p_create OR p_expected > 0 THEN RETURN NULL; END IF;
    INSERT INTO {{threads}} (thread_key, tenant_key, sort_key, tenant, thread_id, version, last_position,
      staged_position, messages, pinned, bytes, tokens, updated_us, ttl_refresh, ttl_explicit, recent, revision,
      metadata)
    VALUES (p_key, p_tenant_key, p_sort_key, p_tenant, p_thread_id, 0, 0, 0, 0, 0, 0, 0, 0, 'write', 0, '', 0, '{{}}')
    ON CONFLICT (thread_key) DO NOTHING
    RETURNING id, last_position, messages - pinned AS unpinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent
    INTO t;
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
  SELECT t.id, t.last_position + {RECORD_COLUMNS} FROM {_RECORDS.format(rows="p_rows")};
  IF t.unpinned + p_unpinned > p_most THEN
    SELECT m.position INTO v_target FROM {{messages}} m WHERE m.thread = t.id AND m.pinned = 0
    ORDER BY m.position LIMIT 1 OFFSET t.unpinned + p_unpinned - p_most;
    SELECT m.position INTO v_cut FROM {{messages}} m WHERE m.thread = t.id AND m.pinned = 0
    AND m.boundary = 1 AND m.position >= v_target ORDER BY m.position LIMIT 1;
    IF v_cut IS NULL THEN
      SELECT s.position INTO v_cut FROM (SELECT m.position, m.boundary FROM {{messages}} m
      WHERE m.thread = t.id AND m.pinned = 0 AND m.position < v_target ORDER BY m.position DESC LIMIT {MAX_RUN}) s
      WHERE s.boundary = 1 LIMIT 1;
    END IF;
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
"""  # noqa: S608

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
  WHERE m.thread = t.id AND m.pinned = 0 AND m.position <= t.last_position ORDER BY m.position DESC LIMIT p_limit;
  IF t.pinned > 0 THEN
    RETURN QUERY SELECT m.position, m.body, m.pinned, m.boundary FROM {{messages}} m
    WHERE m.thread = t.id AND m.pinned = 1 AND m.position <= t.last_position;
  END IF;
  IF t.ttl_refresh = 'read' AND t.ttl > 0 THEN
    RETURN QUERY SELECT 0::bigint, ''::text, 0::smallint, 0::smallint;
  END IF;
END $$
"""  # noqa: S608

FUNCTIONS = (_APPEND_POSTGRESQL, _LATEST_POSTGRESQL)
"""What creates PostgreSQL's functions."""


def records(rows: str) -> str:
    """A table of rows, of their JSON."""
    return _RECORDS.format(rows=rows)


# -- MariaDB ------------------------------------------------------------------------------------------------

_APPEND_MARIADB = f"""
BEGIN NOT ATOMIC
  DECLARE v_id, v_last, v_unpinned, v_explicit, v_expires, v_excess, v_target, v_cut, v_result BIGINT;
  DECLARE v_gone, v_gone_bytes, v_gone_tokens BIGINT DEFAULT 0;
  DECLARE v_ttl DOUBLE;
  DECLARE v_refresh VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
  DECLARE v_recent LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
  DECLARE p_key BINARY(32) DEFAULT :key;
  DECLARE p_request TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT :request;
  DECLARE p_now BIGINT DEFAULT :now;
  DECLARE p_expected BIGINT DEFAULT :expected;
  DECLARE p_most BIGINT DEFAULT :most;
  DECLARE p_ttl DOUBLE DEFAULT :ttl;
  DECLARE p_refresh VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT :refresh;
  DECLARE p_create INT DEFAULT :may_create;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;
  START TRANSACTION;
  work: BEGIN
    SELECT id, last_position, messages - pinned, ttl, ttl_refresh, ttl_explicit, expires_us, recent
    INTO v_id, v_last, v_unpinned, v_ttl, v_refresh, v_explicit, v_expires, v_recent
    FROM {{threads}} WHERE thread_key = p_key FOR UPDATE;
    IF v_id IS NULL THEN
      IF NOT p_create OR p_expected > 0 THEN LEAVE work; END IF;
      INSERT INTO {{threads}} (thread_key, tenant_key, sort_key, tenant, thread_id, version, last_position,
        staged_position, messages, pinned, bytes, tokens, updated_us, ttl_refresh, ttl_explicit, recent,
        revision, metadata)
      VALUES (p_key, :tenant_key, :sort_key, :tenant, :thread_id, 0, 0, 0, 0, 0, 0, 0, 0, 'write', 0, '', 0, '{{}}');
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
      SELECT position INTO v_target FROM {{messages}} WHERE thread = v_id AND pinned = 0
      ORDER BY position LIMIT 1 OFFSET v_excess;
      SELECT position INTO v_cut FROM {{messages}} WHERE thread = v_id AND pinned = 0
      AND boundary = 1 AND position >= v_target ORDER BY position LIMIT 1;
      IF v_cut IS NULL THEN
        SELECT position INTO v_cut FROM (SELECT position, boundary FROM {{messages}}
        WHERE thread = v_id AND pinned = 0 AND position < v_target ORDER BY position DESC LIMIT {MAX_RUN}) AS s
        WHERE boundary = 1 ORDER BY position DESC LIMIT 1;
      END IF;
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
"""  # noqa: S608


@lru_cache(maxsize=256)
def append_mariadb(statements: Statements, count: int) -> Sql:
    """The append of a number of rows; their values follow, in the order of `ROW_COLUMNS`."""
    groups = []
    for number in range(count):
        names = [f":{name}_{letters(number)}" for name in ROW_COLUMNS]
        groups.append(f"(v_id, v_last + {', '.join(names)})")
    return statements.make(_APPEND_MARIADB.replace("{rows}", ", ".join(groups)))


# -- SQLite -------------------------------------------------------------------------------------------------


class SQLiteAppend:
    """The statements of an append to SQLite, to be run in this order in one transaction.

    Attributes:
        trim: deletes what is over the limit when the new rows are there, up to a boundary of the rows that are
            there; below `fallback` when they have none.
        update: counts the new rows in and the deleted ones out, and returns the thread's id, its last
            position and how many of its rows are not pinned. No row is returned when there is no such
            thread, or the general path has to decide.
        create: creates the thread, with the new rows counted, and returns its id; no row when it exists.
    """

    def __init__(self, statements: Statements) -> None:
        row_id = "(SELECT id FROM {threads} WHERE thread_key = :key)"
        kept = f"SELECT m.position FROM {{messages}} m WHERE m.thread = {row_id} AND m.pinned = 0"
        excess = "(SELECT messages - pinned + :unpinned - :most FROM {threads} WHERE thread_key = :key)"
        self.trim = statements.make(
            f"DELETE FROM {{messages}} WHERE thread = {row_id} AND pinned = 0 AND position < "
            f"CASE WHEN {excess} <= 0 THEN 0 ELSE coalesce(({kept} AND m.boundary = 1 AND m.position >= "
            f"({kept} ORDER BY m.position LIMIT 1 OFFSET {excess}) ORDER BY m.position LIMIT 1), :fallback) END "
            "RETURNING bytes, tokens, message_id"
        )
        ttl_changes = (
            "(:refresh IS NOT NULL AND ttl_explicit = 0 AND (ttl IS NOT :ttl OR ttl_refresh <> :refresh))"
        )
        self.update = statements.make(
            "UPDATE {threads} SET version = version + 1, last_position = last_position + :added, "
            "messages = messages + :added - :gone, pinned = pinned + :pinned, bytes = bytes + :bytes, "
            "tokens = tokens + :tokens, first_us = coalesce(first_us, :first), last_us = :last, "
            "updated_us = :now, "
            "recent = CASE WHEN length(recent) - length(replace(recent, char(10), '')) >= "
            f"{RECENT_REQUESTS} THEN substr(recent, instr(recent, char(10)) + 1) ELSE recent END "
            "|| :request || char(10), "
            f"expires_us = CASE WHEN {ttl_changes} THEN {expiry('sqlite', ':ttl', ':now')} "
            f"WHEN ttl_refresh = 'never' THEN expires_us ELSE {expiry('sqlite', 'ttl', ':now')} END, "
            f"ttl = CASE WHEN {ttl_changes} THEN :ttl ELSE ttl END, "
            f"ttl_refresh = CASE WHEN {ttl_changes} THEN :refresh ELSE ttl_refresh END "
            "WHERE thread_key = :key AND (expires_us IS NULL OR expires_us > :now) "
            "AND last_position = coalesce(:expected, last_position) "
            "AND instr(char(10) || recent, char(10) || :request || char(10)) = 0 "
            "RETURNING id, last_position, messages - pinned"
        )
        self.create = statements.make(
            "INSERT INTO {threads} (thread_key, tenant_key, sort_key, tenant, thread_id, version, last_position, "
            "staged_position, messages, pinned, bytes, tokens, first_us, last_us, updated_us, ttl, ttl_refresh, "
            "ttl_explicit, expires_us, recent, revision, metadata) VALUES (:key, :tenant_key, :sort_key, :tenant, "
            ":thread_id, 1, :added, 0, :added, :pinned, :bytes, :tokens, :first, :last, :now, :ttl, "
            f"coalesce(:refresh, 'write'), 0, {expiry('sqlite', ':ttl', ':now')}, :request || char(10), 0, '{{}}') "
            "ON CONFLICT DO NOTHING RETURNING id"
        )
