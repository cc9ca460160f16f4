"""Tenants and threads are isolated, whatever they are called."""

from __future__ import annotations

import uuid

import pytest

from agent_stores.testing.conformance.target import MakeStore, stored, user

HOSTILE_NAMES = [
    "a",
    "A",
    "á",
    "a\u0301",
    " a",
    "a ",
    "a\t",
    "a\n",
    "a\x00",
    "a\x00b",
    "\x01",
    "\x01n",
    "a\x01o",
    "a:b",
    "a/b",
    "a\\b",
    "a#b?c",
    "a%2Fb",
    "a%",
    "a_",
    "*",
    "?",
    "[a]",
    "{a}",
    "}{",
    "a'b",
    "a''b",
    'a"b',
    "a' OR '1'='1",
    "a; DROP TABLE agent_threads; --",
    "123",
    "0123",
    "null",
    "None",
    "true",
    "..",
    ".",
    "../a",
    "~none",
    "-",
    "😀",
    "\ud83d",
    "\U0010ffff",
    "\ud7ff",
    "ﬀ",
    "ß",
    "SS",
    "\u0131",
    "x" * 127,
    "x" * 128,
    "x" * 129,
    "x" * 3000,
    "x" * 2999 + "y",
    "é" * 1000,
]


@pytest.mark.anyio
class TestIsolation:
    async def test_hostile_thread_ids(self, make_store: MakeStore) -> None:
        tenant = uuid.uuid4().hex
        log = make_store().log
        for name in HOSTILE_NAMES:
            await make_store(log, tenant=tenant, thread_id=name).add_messages([user(f"of {name}")])
        for name in HOSTILE_NAMES:
            store = make_store(log, tenant=tenant, thread_id=name)
            assert await stored(store) == [f"of {name}"]
            assert (await store.stats()).thread_id == name
        store = make_store(log, tenant=tenant)
        found = []
        cursor = None
        while True:
            page = await store.list_threads(limit=7, cursor=cursor)
            found += [stats.thread_id for stats in page.threads]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(HOSTILE_NAMES)
        for name in HOSTILE_NAMES:
            assert await make_store(log, tenant=tenant, thread_id=name).delete_thread()
        assert (await store.list_threads()).threads == []

    async def test_hostile_tenants(self, make_store: MakeStore) -> None:
        log = make_store().log
        thread_id = f"t-{uuid.uuid4().hex}"
        tenants = [None, *HOSTILE_NAMES]
        for tenant in tenants:
            await make_store(log, tenant=tenant, thread_id=thread_id).add_messages([user(f"of {tenant!r}")])
        for tenant in tenants:
            store = make_store(log, tenant=tenant, thread_id=thread_id)
            assert await stored(store) == [f"of {tenant!r}"]
            page = await store.list_threads(prefix=thread_id)
            assert [(stats.tenant, stats.thread_id) for stats in page.threads] == [(tenant, thread_id)]

    async def test_names_that_look_alike_when_joined(self, make_store: MakeStore) -> None:
        log = make_store().log
        unique = uuid.uuid4().hex
        separators = (":", "/", "|", "\x00", "\x1f", "_", "-", "%", "~")
        pairs = [
            pair
            for sep in separators
            for pair in ((f"{unique}{sep}a", "b"), (unique, f"a{sep}b"), (f"{unique}{sep}", f"a{sep}b"))
        ]
        for tenant, thread_id in pairs:
            await make_store(log, tenant=tenant, thread_id=thread_id).add_messages([user("x")])
        for tenant, thread_id in pairs:
            assert await make_store(log, tenant=tenant, thread_id=thread_id).count() == 1

    async def test_hostile_message_ids(self, make_store: MakeStore) -> None:
        store = make_store()
        messages = [user(name, message_id=name) for name in HOSTILE_NAMES]
        await store.add_messages(messages)
        await store.add_messages(list(reversed(messages)))
        assert await stored(store) == HOSTILE_NAMES
        for name in HOSTILE_NAMES:
            found = await store.get(name)
            assert found is not None
            assert (found.text, found.message_id) == (name, name)
        for name in HOSTILE_NAMES:
            assert await store.delete(name) == 1
        assert await store.count() == 0
