"""Full-text search by the database itself: SQLite's FTS5, and PostgreSQL's text search vectors.

The index is made by the first search, or by `DatabaseMessageLog.build_search_index`, and from then on kept by
triggers: in the transaction of each write, whoever writes. A database that nobody searches has none of it.
Messages that were there before are indexed in batches, each in a transaction of its own; a build that is
broken off goes on where the next one finds it.

The tables of the index hold the owner's digest as a word of its own, so that a search looks at one tenant's
messages only; what it finds is checked against the thread's row in any case.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from agent_stores.errors import StoreRejectedError
from agent_stores.log import Entry, ThreadKey
from agent_stores.search import SEARCHED_ROLES, Found, search_terms
from agent_stores.stores.database.schema import Schema, from_text, tenant_digest, thread_digest
from agent_stores.stores.database.statements import Transaction

if TYPE_CHECKING:
    from agent_stores.stores.database.server import DatabaseServer

BATCH = 500
"""Messages that are indexed in one transaction."""

_NAME = "agent_stores_search"
_VERSION = 1
_ROLES = ", ".join(f"'{role}'" for role in SEARCHED_ROLES)
_LONGEST = 200_000  # characters of a message that PostgreSQL indexes; a vector holds at most 1 MiB


class SearchIndex:
    """The index of one database; shared by the logs of a process that name it alike."""

    def __init__(self, schema: Schema, dialect: str) -> None:
        prefix = schema.threads.name.removesuffix("threads")
        self._names = {
            "threads": schema.threads.name,
            "messages": schema.messages.name,
            "versions": schema.versions.name,
            "search": f"{prefix}search",
            "words": f"{prefix}search_words",
        }
        self._dialect = dialect
        self._is_built = False
        self._place = (0, 0)  # thread and position up to which this process has filled it

    async def build(self, server: DatabaseServer) -> int:
        """Make the index complete; returns how many messages this call looked at. Costs nothing once it is.

        Raises:
            StoreRejectedError: when this database offers no search.
        """
        if self._is_built:
            return 0
        if self._dialect not in ("sqlite", "postgresql"):
            raise StoreRejectedError(
                f"{server.address.place} offers no full-text search here; SQLite and PostgreSQL do"
            )
        if not await server.run(self._is_complete):
            await server.run(self._install, write=True, repeatable=True)
            seen, is_full = 0, False
            while not is_full:
                fill = partial(self._fill, after=self._place)
                last, count = await server.run(fill, write=True, repeatable=True)
                self._place = max(self._place, last)
                seen += count
                is_full = count < BATCH
            await server.run(self._finish, write=True, repeatable=True)
            self._is_built = True
            return seen
        self._is_built = True
        return 0

    def find(
        self,
        tx: Transaction,
        tenant: str | None,
        query: str,
        *,
        limit: int,
        thread_id: str | None,
        before: tuple[str, int] | None,
        now: int,
    ) -> list[Found]:
        """See `SearchableLog.search`; one statement, on an index that is built."""
        terms = search_terms(query)
        if not terms or not limit:
            return []
        owner = tenant_digest(tenant)
        values: dict[str, Any] = {"tenant": owner, "now": now, "limit": limit}
        conditions = []
        if thread_id is not None:
            values["only"] = thread_digest(ThreadKey(tenant, thread_id))
            conditions.append("AND t.thread_key = :only")
        if before is not None:
            values["shown"] = thread_digest(ThreadKey(tenant, before[0]))
            values["from"] = before[1]
            conditions.append("AND NOT (t.thread_key = :shown AND m.position >= :from)")
        if self._dialect == "sqlite":
            # Words of letters and digits in quotes: nothing of the query is read as FTS5's language.
            words = " OR ".join(f'"{term}"' for term in terms)
            values["query"] = f'owner : "{owner.hex()}" AND body : ({words})'
            template = _FIND_SQLITE
        else:
            values["owner"] = f"'{_owner_word(owner)}'"
            values |= {f"term{index}": term for index, term in enumerate(terms)}
            words = " || ".join(f"plainto_tsquery('simple', :term{index})" for index in range(len(terms)))
            template = _FIND_POSTGRES.replace("{query}", f"({words})")
        statement = self._sql(template.replace("{conditions}", " ".join(conditions)))
        return [
            Found(
                from_text(row.thread_id),
                Entry(row.position, row.body.encode(), row.pinned == 1, row.cut == 1),
                float(row.score),
            )
            for row in tx.conn.execute(statement, values)
        ]

    # -- building -------------------------------------------------------------------------------------

    def _is_complete(self, tx: Transaction) -> bool:
        query = self._sql("SELECT version FROM {versions} WHERE name = :name")
        return tx.conn.execute(query, {"name": _NAME}).scalar() is not None

    def _install(self, tx: Transaction) -> None:
        """Make the tables and triggers, unless they are there."""
        if self._dialect == "postgresql":
            lock = {"name": f"agent_stores:{self._names['search']}"}
            tx.conn.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), lock)
            if tx.conn.execute(text("SELECT to_regclass(:name)"), {"name": self._names["search"]}).scalar():
                return
        for statement in _TABLES_SQLITE if self._dialect == "sqlite" else _TABLES_POSTGRES:
            tx.conn.execute(self._sql(statement))

    def _fill(self, tx: Transaction, after: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """Index the next messages; returns the place of the last of them, and how many they were."""
        values = {"thread": after[0], "position": after[1], "batch": BATCH}
        rows = tx.conn.execute(self._sql(_BATCH), values).all()
        if not rows:
            return after, 0
        last = (int(rows[-1].thread), int(rows[-1].position))
        values = {
            "thread": after[0],
            "position": after[1],
            "last_thread": last[0],
            "last_position": last[1],
        }
        for statement in _FILL_SQLITE if self._dialect == "sqlite" else _FILL_POSTGRES:
            tx.conn.execute(self._sql(statement), values)
        return last, len(rows)

    def _finish(self, tx: Transaction) -> None:
        query = "INSERT INTO {versions} (name, version) VALUES (:name, :version) ON CONFLICT DO NOTHING"
        tx.conn.execute(self._sql(query), {"name": _NAME, "version": _VERSION})

    def _sql(self, template: str) -> Any:
        return text(self._named(template))

    def _named(self, template: str) -> str:
        """A statement with the names of the tables, which are letters, digits and underscores."""
        for name, table in self._names.items():
            template = template.replace(f"{{{name}}}", table)
        return template


def _owner_word(owner: bytes) -> str:
    return f"owner={owner.hex()}"


_BATCH = """
SELECT thread, position FROM {messages} WHERE (thread, position) > (:thread, :position)
ORDER BY thread, position LIMIT :batch
"""

_RANGE = """(m.thread, m.position) > (:thread, :position)
AND (m.thread, m.position) <= (:last_thread, :last_position)"""

# -- SQLite: a table of places, whose numbers are those of the rows of words ---------------------------

_DOCUMENT = "CASE WHEN json_valid(ROW.body) THEN ROW.body ELSE '{}' END"

_WORDS_SQLITE = f"""(
SELECT group_concat(json_extract(part.value, '$.text'), ' ')
FROM json_each({_DOCUMENT}, '$.contents') AS part
WHERE json_extract(part.value, '$.type') = 'text'
AND json_extract({_DOCUMENT}, '$.role') IN ({_ROLES}))"""  # noqa: S608

_OWNER_SQLITE = "(SELECT lower(hex(tenant_key)) FROM {threads} WHERE id = ROW.thread)"

_ADD_SQLITE = f"""
INSERT INTO {{search}} (thread, position)
SELECT new.thread, new.position WHERE {_WORDS_SQLITE.replace("ROW", "new")} IS NOT NULL;
INSERT INTO {{words}} (rowid, body, owner)
SELECT id, {_WORDS_SQLITE.replace("ROW", "new")}, {_OWNER_SQLITE.replace("ROW", "new")}
FROM {{search}} WHERE thread = new.thread AND position = new.position;
"""  # noqa: S608

_REMOVE_SQLITE = """
DELETE FROM {words} WHERE rowid =
(SELECT id FROM {search} WHERE thread = old.thread AND position = old.position);
DELETE FROM {search} WHERE thread = old.thread AND position = old.position;
"""

_TABLES_SQLITE = (
    """CREATE TABLE IF NOT EXISTS {search} (id INTEGER PRIMARY KEY, thread BIGINT NOT NULL,
position BIGINT NOT NULL, UNIQUE (thread, position))""",
    """CREATE VIRTUAL TABLE IF NOT EXISTS {words} USING fts5(body, owner,
tokenize = 'unicode61 remove_diacritics 2')""",
    f"CREATE TRIGGER IF NOT EXISTS {{search}}_added AFTER INSERT ON {{messages}} BEGIN {_ADD_SQLITE} END",
    "CREATE TRIGGER IF NOT EXISTS {search}_removed AFTER DELETE ON {messages} "
    f"BEGIN {_REMOVE_SQLITE} END",
    "CREATE TRIGGER IF NOT EXISTS {search}_replaced AFTER UPDATE OF body ON {messages} "
    f"BEGIN {_REMOVE_SQLITE} {_ADD_SQLITE} END",
)

_FILL_SQLITE = (
    f"""INSERT INTO {{search}} (thread, position) SELECT m.thread, m.position FROM {{messages}} m
WHERE {_RANGE} AND {_WORDS_SQLITE.replace("ROW", "m")} IS NOT NULL ON CONFLICT DO NOTHING""",  # noqa: S608
    f"""INSERT INTO {{words}} (rowid, body, owner)
SELECT s.id, {_WORDS_SQLITE.replace("ROW", "m")}, {_OWNER_SQLITE.replace("ROW", "m")}
FROM {{messages}} m JOIN {{search}} s ON s.thread = m.thread AND s.position = m.position
WHERE {_RANGE} AND NOT EXISTS (SELECT 1 FROM {{words}} w WHERE w.rowid = s.id)""",  # noqa: S608
)

_FIND_SQLITE = """
SELECT t.thread_id, m.position, m.body, m.pinned, m.cut, -bm25({words}, 1.0, 0.0) AS score
FROM {words} JOIN {search} s ON s.id = {words}.rowid
JOIN {messages} m ON m.thread = s.thread AND m.position = s.position
JOIN {threads} t ON t.id = m.thread
WHERE {words} MATCH :query AND t.tenant_key = :tenant
AND (t.expires_us IS NULL OR t.expires_us > :now) {conditions}
ORDER BY score DESC, m.created_us DESC, m.position DESC LIMIT :limit
"""

# -- PostgreSQL: a table of vectors; a function makes them, and gives none where a body cannot be read --

# Punctuation becomes blanks, else its parser takes addresses and paths for single words.
_PUNCTUATION = "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~"

_TABLES_POSTGRES = (
    "CREATE TABLE {search} (thread BIGINT NOT NULL, position BIGINT NOT NULL, vector tsvector NOT NULL, "
    "PRIMARY KEY (thread, position))",
    "CREATE INDEX ix_{search} ON {search} USING gin (vector)",
    f"""CREATE OR REPLACE FUNCTION {{search}}_vector(body text, owner bytea) RETURNS tsvector
LANGUAGE plpgsql AS $$
DECLARE
  said text;
BEGIN
  IF coalesce(body::json ->> 'role', '') NOT IN ({_ROLES}) THEN
    RETURN NULL;
  END IF;
  SELECT string_agg(part ->> 'text', ' ') INTO said
  FROM json_array_elements(body::json -> 'contents') AS part WHERE part ->> 'type' = 'text';
  RETURN to_tsvector('simple', translate(left(said, {_LONGEST}), '{_PUNCTUATION}', '{" " * 32}'))
    || array_to_tsvector(ARRAY['owner=' || encode(owner, 'hex')]);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN NULL;
END $$""",  # noqa: S608
    # With its owner's rights and search path: whoever may write messages need know nothing of the index.
    """CREATE OR REPLACE FUNCTION {search}_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM {search} WHERE thread = old.thread AND position = old.position;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    INSERT INTO {search} (thread, position, vector)
    SELECT new.thread, new.position, made.vector FROM {threads} t,
    LATERAL (SELECT {search}_vector(new.body, t.tenant_key) AS vector) AS made
    WHERE t.id = new.thread AND made.vector IS NOT NULL ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END $$""",
    "CREATE TRIGGER {search}_changed AFTER INSERT OR DELETE OR UPDATE OF body ON {messages} "
    "FOR EACH ROW EXECUTE FUNCTION {search}_changed()",
)

# The rows are locked, so that none is deleted or replaced between being read and being indexed.
_FILL_POSTGRES = (
    f"""INSERT INTO {{search}} (thread, position, vector)
SELECT made.thread, made.position, made.vector FROM (
SELECT m.thread, m.position, {{search}}_vector(m.body, t.tenant_key) AS vector
FROM {{messages}} m JOIN {{threads}} t ON t.id = m.thread WHERE {_RANGE}
FOR SHARE OF m) AS made WHERE made.vector IS NOT NULL ON CONFLICT DO NOTHING""",  # noqa: S608
)

_FIND_POSTGRES = """
SELECT t.thread_id, m.position, m.body, m.pinned, m.cut, ts_rank(s.vector, {query}, 1) AS score
FROM {search} s JOIN {messages} m ON m.thread = s.thread AND m.position = s.position
JOIN {threads} t ON t.id = m.thread
WHERE s.vector @@ (CAST(:owner AS tsquery) && {query}) AND t.tenant_key = :tenant
AND (t.expires_us IS NULL OR t.expires_us > :now) {conditions}
ORDER BY score DESC, m.created_us DESC, m.position DESC LIMIT :limit
"""
