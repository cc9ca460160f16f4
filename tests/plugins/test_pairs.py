"""What each framework is shown of each other's messages; docs/plugins.md has it as a table."""

from __future__ import annotations

import pytest

from agent_stores import ChatMessage, ChatMessageStore
from agent_stores.contents import UsageContent
from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.memory import InMemoryMessageLog
from tests.plugins.pairs.features import FEATURES
from tests.plugins.pairs.table import BESIDE, COMMAND, FRAMEWORKS, KEPT, LEFT_OUT, PAGE, page_with, run, table

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """The managers of Strands and Haystack block, by their interface."""


@pytest.mark.parametrize("reader", FRAMEWORKS)
@pytest.mark.parametrize("writer", FRAMEWORKS)
async def test_nothing_is_dropped_silently(writer: str, reader: str) -> None:
    for name in FRAMEWORKS[writer].messages:
        found = await run(writer, reader, name)
        if found.state == LEFT_OUT:
            assert found.lines, f"{name} is left out, and nothing in the log says so"
            assert all("which stays in the store" in line for line in found.lines), name
        else:
            assert not found.lines, f"{name} is {found.state}, and the log says that something is left out"
        if writer == reader:
            assert found.state == KEPT, name
        if found.state == BESIDE:
            assert FEATURES[name].beside, name
        before, after = found.stored
        assert before == after, f"{name} is stored otherwise once the reader has written back what it read"
        shown, wrote = found.own
        assert shown == wrote, f"{name} does not come back to its own framework"


async def test_the_page_says_what_is_so() -> None:
    wanted = page_with(await table())
    assert PAGE.read_text(encoding="utf-8") == wanted, f"the table is another; this rewrites it: {COMMAND}"


def test_every_row_is_written() -> None:
    written = {name for framework in FRAMEWORKS.values() for name in framework.messages}
    assert written == set(FEATURES)


async def test_of_two_usages_one_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    log = InMemoryMessageLog()
    usages = [UsageContent(1, 2, 3), UsageContent(4, 5, 9)]
    await ChatMessageStore(log, thread_id="s").add_messages([ChatMessage("assistant", contents=usages)])
    (message,) = await AgentStoresChatMessageHistory("s", log).aget_messages()
    assert message.usage_metadata == {"input_tokens": 4, "output_tokens": 5, "total_tokens": 9}  # type: ignore[attr-defined]
    assert "an AIMessage holds one" in caplog.text
