"""Full-text search by the database itself: SQLite's FTS5, and PostgreSQL's text search vectors.

The first search creates the index, or `DatabaseMessageLog.build_search_index`. From then on triggers update
it in the transaction of each write. A database that is not searched has none. Older messages are indexed in
batches; the next build continues one that was interrupted.

The index holds the owner's digest as a word of its own, so that a search reads one tenant's messages only.
What it finds is checked against the thread's row in any case.
"""

from __future__ import annotations

from typing import Any

from agent_stores.backend import Row, ThreadKey
from agent_stores.backends.sql.database import Database
from agent_stores.backends.sql.names import from_text, tenant_digest, thread_digest
from agent_stores.backends.sql.statements import LARGEST, POSITION, Steps
from agent_stores.capabilities import SearchHit, SearchQuery
from agent_stores.search import SEARCHED_ROLES, search_terms

BATCH = 500
"""How many messages are indexed in one transaction."""

_NAME = "agent_stores_search"
_ROLES = ", ".join(f"'{role}'" for role in SEARCHED_ROLES)
_LONGEST = 200_000  # characters of a message that PostgreSQL indexes; a vector holds at most 1 MiB


class SearchIndex:
    """The index of one database, SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database, self._sql = database, database.sql
        self._is_built = False
        self._done = 0  # the key of the last message that this process has indexed

    async def search(self, query: SearchQuery) -> list[SearchHit]:
        """See `SearchableBackend.search`; one statement, when the index is built."""
        await self.build()
        tenant, before, terms = query.tenant, query.before, search_terms(query.text)
        if not terms or not query.limit:
            return []
        owner = tenant_digest(tenant)
        values: dict[str, Any] = {"tenant": owner, "now": query.now_us, "limit": query.limit}
        where = "t.tenant_key = :tenant AND (t.expires_us IS NULL OR t.expires_us > :now)"
        if query.thread_id is not None:
            values["only"] = thread_digest(ThreadKey(tenant, query.thread_id))
            where += " AND t.thread_key = :only"
        if before is not None:
            values["shown"], values["below"] = thread_digest(ThreadKey(tenant, before[0])), before[1]
            where += f" AND NOT (t.thread_key = :shown AND m.id - m.thread * {LARGEST} >= :below)"
        if self._sql.is_sqlite:
            # Words of letters and digits in quotes: nothing of the query is read as FTS5's language.
            words = " OR ".join(f'"{term}"' for term in terms)
            values["query"] = f'owner : "{owner.hex()}" AND body : ({words})'
            key, score = "rowid", "-bm25({search}, 1.0, 0.0)"
            where += " AND {search} MATCH :query"
        else:
            values["owner"] = f"'owner={owner.hex()}'"
            values.update((f"term_{n}", term) for n, term in enumerate(terms))
            words = " || ".join(f"plainto_tsquery('simple', :term_{n})" for n in range(len(terms)))
            key, score = "id", f"ts_rank(s.vector, ({words}), 1)"
            where += f" AND s.vector @@ (CAST(:owner::text AS tsquery) && ({words}))"
        text = (
            f"SELECT t.thread_id, {POSITION}, m.body, m.pinned, m.boundary, {score} AS score "
            f"FROM {{search}} s JOIN {{messages}} m ON m.id = s.{key} "
            f"JOIN {{threads}} t ON t.id = m.thread WHERE {where} "
            "ORDER BY score DESC, m.created_us DESC, position DESC LIMIT :limit"
        )
        found = await self._database.run(self._sql(text, values))
        return [
            SearchHit(
                from_text(name), Row("", body.encode(), position, boundary == 1, pinned == 1), float(score)
            )
            for name, position, body, pinned, boundary, score in found
        ]

    async def build(self) -> int:
        """Make the index complete; returns how many messages were read. Costs nothing once it is."""
        run, seen = self._database.run, 0
        if self._is_built:
            return seen
        if not await run(self._sql(f"SELECT 1 FROM {{schema}} WHERE name = '{_NAME}' AND version = 1")):
            await run(self._install, repeatable=True)
            read = f"SELECT id FROM {{messages}} WHERE id > :done ORDER BY id LIMIT {BATCH}"
            # The triggers index what is written, even if it is the same.
            write = "UPDATE {messages} SET body = body WHERE id > :done AND id <= :last"
            while rows := await run(self._sql(read, {"done": self._done})):
                values = {"done": self._done, "last": rows[-1][0]}
                await run(self._sql(write, values), write=True, repeatable=True)
                self._done, seen = values["last"], seen + len(rows)
            text = f"UPDATE {{schema}} SET version = 1 WHERE name = '{_NAME}'"
            await run(self._sql(text), write=True, repeatable=True)
        self._is_built = True
        return seen

    async def optimize(self) -> None:
        """Merge SQLite's index, which otherwise keeps the words of deleted messages for a while."""
        if await self._database.run(self._sql("SELECT 1 FROM sqlite_master WHERE name = '{search}'")):
            text = "INSERT INTO {search} ({search}) VALUES ('optimize')"
            await self._database.run(self._sql(text), write=True, repeatable=True)

    def _install(self) -> Steps[None]:
        """Create the tables and triggers, once: of several clients, one inserts the row of the version."""
        text = f"INSERT INTO {{schema}} (name, version) VALUES ('{_NAME}', 0) ON CONFLICT DO NOTHING"
        if (yield self._sql(f"{text} RETURNING version")):
            for text in _TABLES_SQLITE if self._sql.is_sqlite else _TABLES_POSTGRES:
                yield self._sql(text)


# -- SQLite: a table of words, whose rows have the numbers of the messages --------------------------------

_DOCUMENT = "CASE WHEN json_valid(new.body) THEN new.body ELSE '{}' END"

_ADD_SQLITE = f"""
INSERT INTO {{search}} (rowid, body, owner)
SELECT new.id, said.words, lower(hex(t.tenant_key)) FROM {{threads}} t, (
SELECT group_concat(json_extract(part.value, '$.text'), ' ') AS words
FROM json_each({_DOCUMENT}, '$.contents') AS part
WHERE json_extract(part.value, '$.type') = 'text'
AND json_extract({_DOCUMENT}, '$.role') IN ({_ROLES})) AS said
WHERE t.id = new.thread AND said.words IS NOT NULL;
"""

_REMOVE_SQLITE = "DELETE FROM {search} WHERE rowid = old.id;"

_TABLES_SQLITE = (
    "CREATE VIRTUAL TABLE {search} USING fts5(body, owner, tokenize = 'unicode61 remove_diacritics 2')",
    f"CREATE TRIGGER {{search}}_added AFTER INSERT ON {{messages}} BEGIN {_ADD_SQLITE} END",
    f"CREATE TRIGGER {{search}}_removed AFTER DELETE ON {{messages}} BEGIN {_REMOVE_SQLITE} END",
    "CREATE TRIGGER {search}_replaced AFTER UPDATE OF body ON {messages} "
    f"BEGIN {_REMOVE_SQLITE} {_ADD_SQLITE} END",
)

# -- PostgreSQL: a table of vectors; a trigger makes them, but for a body that cannot be read ------------

# Punctuation becomes blanks, else its parser takes addresses and paths for single words.
_PUNCTUATION = "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~"

_TABLES_POSTGRES = (
    "CREATE TABLE {search} (id BIGINT PRIMARY KEY, vector tsvector NOT NULL)",
    "CREATE INDEX ix_{search} ON {search} USING gin (vector)",
    # With its owner's rights and search path: a user who may write messages needs no rights on the index.
    f"""CREATE OR REPLACE FUNCTION {{search}}_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN DELETE FROM {{search}} WHERE id = old.id; END IF;
  IF TG_OP <> 'DELETE' THEN BEGIN
    INSERT INTO {{search}} (id, vector) SELECT new.id,
    to_tsvector('simple', translate(left(said.words, {_LONGEST}), '{_PUNCTUATION}', '{" " * 32}'))
    || array_to_tsvector(ARRAY['owner=' || encode(t.tenant_key, 'hex')])
    FROM {{threads}} t, (SELECT string_agg(part ->> 'text', ' ') AS words
    FROM json_array_elements(new.body::json -> 'contents') AS part WHERE part ->> 'type' = 'text') AS said
    WHERE t.id = new.thread AND said.words IS NOT NULL AND new.body::json ->> 'role' IN ({_ROLES})
    ON CONFLICT DO NOTHING;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN NULL;
  END; END IF;
  RETURN NULL;
END $$""",
    "CREATE TRIGGER {search}_changed AFTER INSERT OR DELETE OR UPDATE OF body ON {messages} "
    "FOR EACH ROW EXECUTE FUNCTION {search}_changed()",
)
