"""Full-text search by the database itself: SQLite's FTS5, and PostgreSQL's text search vectors.

The first search creates the index, or `DatabaseMessageLog.build_search_index`. From then on triggers update
it in the transaction of each write. A database that is not searched has none. Older messages are indexed in
batches, each in a transaction of its own; the next build continues one that was interrupted.

The index holds the owner's digest as a word of its own, so that a search reads one tenant's messages only.
What it finds is checked against the thread's row in any case.
"""

from __future__ import annotations

from typing import Any

from agent_stores.backend import Row, ThreadKey
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.names import from_text, tenant_digest, thread_digest
from agent_stores.backends.sql.statements import BEGIN, Steps
from agent_stores.capabilities import SearchHit
from agent_stores.search import SEARCHED_ROLES, search_terms

BATCH = 500
"""How many messages are indexed in one transaction."""

_NAME = "agent_stores_search"
_ROLES = ", ".join(f"'{role}'" for role in SEARCHED_ROLES)
_LONGEST = 200_000  # characters of a message that PostgreSQL indexes; a vector holds at most 1 MiB


class SearchIndex:
    """The index of one database, SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._make = database.statements.make
        self._is_sqlite = database.dialect == "sqlite"
        self._is_built = False
        self._done = (0, 0)  # thread and position up to which this process has filled it

    async def search(
        self,
        tenant: str | None,
        query: str,
        *,
        limit: int,
        thread_id: str | None,
        before: tuple[str, int] | None,
        now_us: int,
    ) -> list[SearchHit]:
        """See `SearchableBackend.search`; one statement, when the index is built."""
        await self.build()
        terms = search_terms(query)
        if not terms or not limit:
            return []
        owner = tenant_digest(tenant)
        values: dict[str, Any] = {"tenant": owner, "now": now_us, "limit": limit}
        conditions = ""
        if thread_id is not None:
            values["only"] = thread_digest(ThreadKey(tenant, thread_id))
            conditions += " AND t.thread_key = :only"
        if before is not None:
            values["shown"], values["below"] = thread_digest(ThreadKey(tenant, before[0])), before[1]
            conditions += " AND NOT (t.thread_key = :shown AND m.position >= :below)"
        if self._is_sqlite:
            # Words of letters and digits in quotes: nothing of the query is read as FTS5's language.
            words = " OR ".join(f'"{term}"' for term in terms)
            values["query"] = f'owner : "{owner.hex()}" AND body : ({words})'
            text = _FIND_SQLITE
        else:
            values["owner"] = f"'owner={owner.hex()}'"
            values.update((f"term_{n}", term) for n, term in enumerate(terms))
            words = " || ".join(f"plainto_tsquery('simple', :term_{n})" for n in range(len(terms)))
            text = _FIND_POSTGRESQL.replace("{query}", f"({words})")
        found = await self._database.run(self._make(text.replace("{conditions}", conditions))(**values))
        return [
            SearchHit(
                from_text(name), Row("", body.encode(), position, boundary == 1, pinned == 1), float(score)
            )
            for name, position, body, pinned, boundary, score in found
        ]

    async def build(self) -> int:
        """Make the index complete; returns how many messages were read. Costs nothing once it is."""
        if self._is_built:
            return 0
        run, seen, count = self._database.run, 0, BATCH
        known = self._make("SELECT version FROM {schema} WHERE name = :name")(name=_NAME)
        if not await run(known):
            await run(steps=self._install, repeatable=True)
            while count == BATCH:
                last, count = await run(steps=self._fill, repeatable=True)
                self._done = max(self._done, last)
                seen += count
            text = "INSERT INTO {schema} (name, version) VALUES (:name, :version) ON CONFLICT DO NOTHING"
            await run(self._make(text)(name=_NAME, version=1), write=True, repeatable=True)
        self._is_built = True
        return seen

    async def optimize(self) -> None:
        """Merge SQLite's index, which otherwise keeps the words of deleted messages for a while."""
        name = self._database.statements.named("{search_words}")
        exists = await self._database.run(("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)))
        if exists:
            text = f"INSERT INTO {name} ({name}) VALUES ('optimize')"
            await self._database.run((text, ()), write=True, repeatable=True)

    def _install(self) -> Steps[None]:
        """Create the tables and triggers, unless they exist."""
        yield BEGIN
        if not self._is_sqlite:
            name = self._database.statements.named("{search}")
            yield f"SELECT pg_advisory_xact_lock(hashtext('agent_stores:{name}'))", ()
            [(existing,)] = yield f"SELECT to_regclass('{name}')::text", ()
            if existing:
                return
        for text in _TABLES_SQLITE if self._is_sqlite else _TABLES_POSTGRES:
            yield self._database.statements.named(text), ()

    def _fill(self) -> Steps[tuple[tuple[int, int], int]]:
        """Index the next messages; returns the thread and position of the last one, and their number."""
        values = {"thread": self._done[0], "position": self._done[1], "batch": BATCH}
        yield BEGIN
        rows = yield self._make(_BATCH)(**values)
        last = (int(rows[-1][0]), int(rows[-1][1])) if rows else self._done
        if rows:
            yield self._make(_FILL)(**values, last_thread=last[0], last_position=last[1])
        return last, len(rows)


def _find(score: str, index: str, match: str) -> str:
    return f"""
SELECT t.thread_id, m.position, m.body, m.pinned, m.boundary, {score} AS score
FROM {index} JOIN {{messages}} m ON m.thread = s.thread AND m.position = s.position
JOIN {{threads}} t ON t.id = m.thread
WHERE {match} AND t.tenant_key = :tenant AND (t.expires_us IS NULL OR t.expires_us > :now){{conditions}}
ORDER BY score DESC, m.created_us DESC, m.position DESC LIMIT :limit"""


_BATCH = """
SELECT thread, position FROM {messages} WHERE (thread, position) > (:thread, :position)
ORDER BY thread, position LIMIT :batch
"""

# The triggers index what is written, even if it is the same.
_FILL = """
UPDATE {messages} SET body = body WHERE (thread, position) > (:thread, :position)
AND (thread, position) <= (:last_thread, :last_position)
"""

# -- SQLite: a table of positions, whose numbers are those of the rows of words -------------------------

_DOCUMENT = "CASE WHEN json_valid(ROW.body) THEN ROW.body ELSE '{}' END"

_WORDS_SQLITE = f"""(
SELECT group_concat(json_extract(part.value, '$.text'), ' ')
FROM json_each({_DOCUMENT}, '$.contents') AS part
WHERE json_extract(part.value, '$.type') = 'text'
AND json_extract({_DOCUMENT}, '$.role') IN ({_ROLES}))"""

_OWNER_SQLITE = "(SELECT lower(hex(tenant_key)) FROM {threads} WHERE id = ROW.thread)"

_ADD_SQLITE = f"""
INSERT INTO {{search}} (thread, position)
SELECT new.thread, new.position WHERE {_WORDS_SQLITE.replace("ROW", "new")} IS NOT NULL;
INSERT INTO {{search_words}} (rowid, body, owner)
SELECT id, {_WORDS_SQLITE.replace("ROW", "new")}, {_OWNER_SQLITE.replace("ROW", "new")}
FROM {{search}} WHERE thread = new.thread AND position = new.position;
"""

_REMOVE_SQLITE = """
DELETE FROM {search_words} WHERE rowid =
(SELECT id FROM {search} WHERE thread = old.thread AND position = old.position);
DELETE FROM {search} WHERE thread = old.thread AND position = old.position;
"""

_TABLES_SQLITE = (
    """CREATE TABLE IF NOT EXISTS {search} (id INTEGER PRIMARY KEY, thread BIGINT NOT NULL,
position BIGINT NOT NULL, UNIQUE (thread, position))""",
    """CREATE VIRTUAL TABLE IF NOT EXISTS {search_words} USING fts5(body, owner,
tokenize = 'unicode61 remove_diacritics 2')""",
    f"CREATE TRIGGER IF NOT EXISTS {{search}}_added AFTER INSERT ON {{messages}} BEGIN {_ADD_SQLITE} END",
    "CREATE TRIGGER IF NOT EXISTS {search}_removed AFTER DELETE ON {messages} "
    f"BEGIN {_REMOVE_SQLITE} END",
    "CREATE TRIGGER IF NOT EXISTS {search}_replaced AFTER UPDATE OF body ON {messages} "
    f"BEGIN {_REMOVE_SQLITE} {_ADD_SQLITE} END",
)

_FIND_SQLITE = _find(
    "-bm25({search_words}, 1.0, 0.0)",
    "{search_words} JOIN {search} s ON s.id = {search_words}.rowid",
    "{search_words} MATCH :query",
)

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
END $$""",
    # With its owner's rights and search path: a user who may write messages needs no rights on the index.
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

_FIND_POSTGRESQL = _find(
    "ts_rank(s.vector, {query}, 1)",
    "{search} s",
    "s.vector @@ (CAST(:owner::text AS tsquery) && {query})",
)
