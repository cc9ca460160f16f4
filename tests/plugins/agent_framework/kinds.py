"""Messages of every kind that the installed Agent Framework knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agent_stores.plugins.agent_framework import compat

PIXEL = bytes.fromhex("89504e470d0a1a0a") + bytes(range(64))

Content: Any = compat.CONTENT
is_beta = compat.IS_BETA


def message(role: str, contents: list[Any], **fields: Any) -> Any:
    return compat.MESSAGE(role=role, contents=contents, **fields)


def text(words: str) -> Any:
    return Content.from_text(words)


def dump(given: Any) -> dict[str, Any]:
    """What the framework's own serialization says of a message; the store gives it an id."""
    data: dict[str, Any] = json.loads(given.to_json())
    return data


def call(call_id: str = "call_1", **fields: Any) -> Any:
    return Content.from_function_call(call_id, "weather", arguments='{"city": "Oslo"}', **fields)


def contents() -> Iterator[tuple[str, Any]]:
    """A content of every kind, several of some, by a name that says what is special."""
    yield "text", text("Grüße 🎈\0\ud83d")
    yield "text empty", text("")
    yield (
        "text annotated",
        Content.from_text(
            "cited",
            annotations=[
                {"type": "citation", "title": "A", "url": "https://example.org", "tool_name": "search"}
            ],
            additional_properties={"n": 1, "f": 1.0, "deep": {"a": [None, True, {"b": "c"}]}, "big": 2**70},
        ),
    )
    yield "text with our name", Content.from_text("x", additional_properties={"agent_framework": {"a": 1}})
    yield "reasoning", Content.from_text_reasoning(text="because", protected_data="sealed")
    yield "reasoning without text", Content.from_text_reasoning(protected_data="sealed")
    yield "data", Content.from_data(PIXEL, "image/png")
    yield "data empty", Content("data", uri="data:;base64,", media_type="text/plain")
    yield "data with parameters", Content("data", uri="data:text/plain;charset=utf-8;base64,YWJj")
    yield "data without base64", Content("data", uri="data:text/plain,hello", media_type="text/plain")
    yield "data not canonical", Content("data", uri="data:image/png;base64,YQ", media_type="image/jpeg")
    yield "uri", Content.from_uri("https://example.org/a.png", media_type="image/png")
    yield "uri without type", Content("uri", uri="https://example.org/a")
    yield "error", Content.from_error(message="no", error_code="500", error_details="later")
    yield "error empty", Content.from_error()
    yield (
        "usage",
        Content.from_usage({"input_token_count": 3, "output_token_count": 4, "total_token_count": 7}),
    )
    yield (
        "usage with more",
        Content.from_usage({"input_token_count": 3, "openai.cached": 2, "total_token_count": -1}),
    )
    yield "call", call()
    yield "call with object", Content.from_function_call("c", "n", arguments={"a": [1, {"b": None}]})
    yield "call without arguments", Content.from_function_call("c", "n")
    yield "call malformed", Content.from_function_call("c", "n", arguments='{"a": ')
    yield "call without id", Content.from_function_call("", "n", arguments="{}")
    yield "call failed", Content.from_function_call("c", "n", arguments="{}", exception="ValueError: x")
    yield "result", Content.from_function_result("call_1", result="11 degrees")
    yield "result of data", Content.from_function_result("call_1", result={"t": 11, "list": [1, 2.5, None]})
    yield "result None", Content.from_function_result("call_1", result=None)
    yield (
        "result failed",
        Content.from_function_result("call_1", result="Error: x", exception="ValueError: x"),
    )
    yield "result plain", Content("function_result", call_id="call_1", result={"t": 11})
    yield (
        "approval request",
        Content.from_function_approval_request(id="r1", function_call=call(additional_properties={"k": "v"})),
    )
    yield "approval response", Content.from_function_approval_response(True, "r1", call())
    yield "approval refused", Content.from_function_approval_response(False, id="r1", function_call=call())
    yield (
        "approval of a server's tool",
        Content.from_function_approval_request(
            id="r2",
            function_call=Content.from_mcp_server_tool_call("m", "tool", server_name="s", arguments="{}"),
        ),
    )
    yield "hosted file", Content.from_hosted_file("file_1")
    yield "hosted vector store", Content.from_hosted_vector_store("vs_1")
    yield (
        "code call",
        Content.from_code_interpreter_tool_call(call_id="c", inputs=[text("print(1)")]),
    )
    yield (
        "code result",
        Content.from_code_interpreter_tool_result(
            call_id="c", outputs=[text("1"), Content.from_data(PIXEL, "image/png")]
        ),
    )
    yield "image call", Content.from_image_generation_tool_call(image_id="i")
    yield (
        "image result",
        Content.from_image_generation_tool_result(
            image_id="i", outputs=[Content.from_data(PIXEL, "image/png")]
        ),
    )
    yield (
        "server's call",
        Content.from_mcp_server_tool_call("c", "tool", server_name="s", arguments={"a": 1}),
    )
    yield "server's result", Content.from_mcp_server_tool_result("c", output=[{"type": "text", "text": "x"}])
    yield (
        "server's result of any data",
        Content.from_mcp_server_tool_result("c", output=[{"type": "y", "z": 1}]),
    )
    if is_beta:
        return
    yield (
        "data with a name",
        Content("data", uri="data:image/png;base64,YWJj", media_type="image/png", name="a.png"),
    )
    yield (
        "result with an image",
        Content.from_function_result("call_1", result=[text("here"), Content.from_data(PIXEL, "image/png")]),
    )
    yield (
        "result of an image",
        Content.from_function_result("call_1", result=[Content.from_data(PIXEL, "image/png")]),
    )
    yield (
        "result in another order",
        Content.from_function_result(
            "call_1", result=[Content.from_data(PIXEL, "image/png"), text("one"), text("two")]
        ),
    )
    annotated = Content.from_text("here", additional_properties={"a": 1})
    yield "result of annotated text", Content.from_function_result("call_1", result=[annotated])
    if "informational_only" in compat.CONTENT_FIELDS:
        yield "call for information", call(informational_only=True)
    if "hosted" in compat.CONTENT_FIELDS:
        yield "call of a server", call(hosted=True, server_name="s", id="fc_1", status="completed")
        yield "call named by the framework", call(id="fc_2")
    # By the constructor where a factory is new or warns that it is experimental.
    more: dict[str, dict[str, Any]] = {
        "shell_tool_call": {"call_id": "c", "commands": ["ls", "pwd"], "timeout_ms": 5},
        "search_tool_call": {"call_id": "c", "tool_name": "web", "arguments": {"q": "x"}},
        "search_tool_result": {"call_id": "c", "tool_name": "web", "items": [text("found")]},
        "computer_tool_call": {"id": "i", "call_id": "c", "actions": [{"type": "click", "x": 1}]},
        "computer_tool_result": {
            "call_id": "c",
            "screenshot": Content.from_data(PIXEL, "image/png"),
            "acknowledged_safety_checks": [{"id": "s"}],
        },
    }
    for name, fields in more.items():
        if name in compat.CONTENT_TYPES:
            yield name.replace("_", " "), Content(name, **fields)
    outputs = [Content.from_shell_command_output(stdout="a\n", stderr="", exit_code=0, timed_out=False)]
    yield "shell result", Content.from_shell_tool_result(call_id="c", outputs=outputs)
    yield "consent", Content.from_oauth_consent_request("https://example.org/consent")


KINDS = dict(contents())


def messages() -> list[Any]:
    """A message of every kind, each with what a message may have beside its contents."""
    made = [
        message("system", [text("Be brief.")]),
        message("user", [text("a"), text("b")], author_name="Ann", message_id="own-1"),
        message(
            "assistant", [], additional_properties={"a": {"b": [1, None]}, "_attribution": {"source_id": "x"}}
        ),
        message("developer", [text("x")], author_name=""),
        message("critic", [text("a role of its own")]),
    ]
    made += [message("assistant", [content], message_id=f"kind {name}") for name, content in KINDS.items()]
    return made
