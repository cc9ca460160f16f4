"""Token counters."""

from __future__ import annotations

import sys

import pytest
import tiktoken

from agent_stores import (
    ChatMessage,
    DataContent,
    InMemoryChatMessageStore,
    ToolCallContent,
    ToolResultContent,
)
from agent_stores.errors import ArgumentError, MissingDependencyError
from agent_stores.tokens import MEDIA_TOKENS, MESSAGE_OVERHEAD, estimate_tokens, tiktoken_counter


def test_the_estimate() -> None:
    assert estimate_tokens(ChatMessage("user")) == MESSAGE_OVERHEAD
    assert estimate_tokens(ChatMessage("user", "x" * 400)) == MESSAGE_OVERHEAD + 100
    assert estimate_tokens(ChatMessage("user", "我" * 400)) == MESSAGE_OVERHEAD + 300
    assert estimate_tokens(ChatMessage("user", "\ud800")) == MESSAGE_OVERHEAD + 1
    image = ChatMessage("user", contents=[DataContent(b"x" * 10_000_000, "image/png")])
    assert estimate_tokens(image) == MESSAGE_OVERHEAD + MEDIA_TOKENS
    call = ChatMessage("assistant", contents=[ToolCallContent("c", "name", '{"a": 1}')])
    assert estimate_tokens(call) == MESSAGE_OVERHEAD + 3
    result = ChatMessage("tool", contents=[ToolResultContent("c", {"a": 1})])
    assert estimate_tokens(result) == MESSAGE_OVERHEAD + 2


def test_tiktoken_with_a_table_of_ones_own() -> None:
    table = tiktoken.Encoding(
        "bytes", pat_str=r".", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
    )
    count = tiktoken_counter(table)
    assert count(ChatMessage("user", "héllo")) == MESSAGE_OVERHEAD + 6
    assert InMemoryChatMessageStore(count_tokens=count)


def test_without_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingDependencyError, match=r"agent-stores\[tiktoken\]"):
        tiktoken_counter()


def test_tiktoken_without_its_table(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unreachable(name: str) -> None:
        raise OSError(f"no route to the host of {name}")

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    count = tiktoken_counter()
    messages = [ChatMessage("user", "x" * 400), ChatMessage("user", "y")]
    assert [count(message) for message in messages] == [estimate_tokens(message) for message in messages]
    assert caplog.messages == ["tiktoken cannot load the table of o200k_base (OSError): tokens are estimated"]
    with pytest.raises(ArgumentError, match=r"encoding must be a name that tiktoken knows, got 'o300k'"):
        tiktoken_counter("o300k")
