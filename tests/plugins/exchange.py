"""One conversation as each framework writes it, reads it, and goes on with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from ag2 import Agent as AG2Agent
from ag2 import MemoryStream
from ag2.events import (
    BinaryInput,
    ImageInput,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
)
from ag2.testing import TestConfig
from google.adk.agents import LlmAgent
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types
from haystack.dataclasses import ChatMessage as HaystackMessage
from haystack.dataclasses import ImageContent, ToolCall
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import messages as pydantic_ai
from pydantic_ai.conversation import Conversation
from pydantic_ai.models.test import TestModel
from strands import Agent as StrandsAgent
from strands.types.session import SessionMessage

from agent_stores import ChatAgent, ChatMessage, ChatMessageStore
from agent_stores.ag2 import AgentStoresStorage
from agent_stores.claude_agent import AgentStoresSessionStore
from agent_stores.contents import DataContent, TextContent, ToolCallContent, ToolResultContent
from agent_stores.google_adk import AgentStoresSessionService
from agent_stores.haystack import AgentStoresChatMessageStore
from agent_stores.langgraph import AgentStoresSaver
from agent_stores.log import MessageLog
from agent_stores.openai import OpenAIChatClient
from agent_stores.pydantic_ai import AgentStoresConversationStore
from agent_stores.strands import AgentStoresSessionManager
from tests.plugins.ag2.events import context
from tests.plugins.conftest import PNG
from tests.plugins.strands.messages import ScriptedModel

THREAD = "app/u/s"
"""As ADK names a session of three names; all frameworks take it."""
IMAGE = base64.b64encode(PNG).decode()
CALLS = [("t1", {"city": "Oslo"}), ("t2", {"city": "Bergen"})]
RESULTS = [("t1", "rain"), ("t2", "sun")]
SAID: list[tuple[Any, ...]] = [
    ("user", "The weather?"),
    ("image", PNG),
    *(("call", "weather", name, arguments) for name, arguments in CALLS),
    *(("result", name, text) for name, text in RESULTS),
    ("assistant", "Rain and sun."),
]
"""What the conversation says."""

QUESTION, ANSWER = "repeat: Alice", "Alice"

Facts = list[tuple[Any, ...]]


async def write_neutral(log: MessageLog) -> None:
    await ChatMessageStore(log, thread_id=THREAD).add_messages(
        [
            ChatMessage("user", contents=["The weather?", DataContent(PNG, media_type="image/png")]),
            ChatMessage(
                "assistant", contents=[ToolCallContent(name, "weather", args) for name, args in CALLS]
            ),
            *(ChatMessage("tool", contents=[ToolResultContent(name, text)]) for name, text in RESULTS),
            ChatMessage("assistant", "Rain and sun."),
        ]
    )


async def read_neutral(log: MessageLog) -> Facts:
    facts: Facts = []
    messages = await ChatMessageStore(log, thread_id=THREAD).list_messages()
    for message in messages:
        for part in message.contents:
            if isinstance(part, ToolCallContent):
                facts.append(("call", part.name, part.call_id, part.parse_arguments()))
            elif isinstance(part, ToolResultContent):
                facts.append(("result", part.call_id, part.result))
            elif isinstance(part, DataContent):
                facts.append(("image", part.data))
            elif isinstance(part, TextContent):
                facts.append((message.role, part.text))
    return facts


CLAUDE: Any = {"project_key": "app", "session_id": "u/s"}


async def write_claude(log: MessageLog) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    contents: list[tuple[str, Any]] = [
        ("user", [{"type": "text", "text": "The weather?"}, {"type": "image", "source": source}]),
        *(
            ("assistant", [{"type": "tool_use", "id": n, "name": "weather", "input": args}])
            for n, args in CALLS
        ),
        *(("user", [{"type": "tool_result", "tool_use_id": n, "content": text}]) for n, text in RESULTS),
        ("assistant", [{"type": "text", "text": "Rain and sun."}]),
    ]
    entries: list[Any] = [
        {"type": role, "uuid": f"u{number}", "message": {"role": role, "content": content}}
        for number, (role, content) in enumerate(contents)
    ]
    await AgentStoresSessionStore(log).append(CLAUDE, entries)


async def read_claude(log: MessageLog) -> Facts:
    facts: Facts = []
    entries: Any = await AgentStoresSessionStore(log).load(CLAUDE)
    for entry in entries:
        content: Any = entry["message"]["content"]
        blocks: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            if block["type"] == "text":
                facts.append((entry["type"], block["text"]))
            elif block["type"] == "image":
                facts.append(("image", base64.b64decode(block["source"]["data"])))
            elif block["type"] == "tool_use":
                facts.append(("call", block["name"], block["id"], block["input"]))
            else:
                facts.append(("result", block["tool_use_id"], block["content"]))
    return facts


async def write_strands(log: MessageLog) -> None:
    contents: list[tuple[str, Any]] = [
        ("user", [{"text": "The weather?"}, {"image": {"format": "png", "source": {"bytes": PNG}}}]),
        ("assistant", [{"toolUse": {"toolUseId": n, "name": "weather", "input": args}} for n, args in CALLS]),
        (
            "user",
            [
                {"toolResult": {"toolUseId": n, "status": "success", "content": [{"text": text}]}}
                for n, text in RESULTS
            ],
        ),
        ("assistant", [{"text": "Rain and sun."}]),
    ]
    manager = AgentStoresSessionManager(THREAD, log)
    for number, (role, content) in enumerate(contents):
        message: Any = {"role": role, "content": content}
        manager.create_message(THREAD, "default", SessionMessage(message, number))


async def read_strands(log: MessageLog) -> Facts:
    facts: Facts = []
    for one in AgentStoresSessionManager(THREAD, log).list_messages(THREAD, "default"):
        blocks: Any = one.to_message()["content"]
        for block in blocks:
            if "text" in block:
                facts.append((one.to_message()["role"], block["text"]))
            elif "image" in block:
                facts.append(("image", block["image"]["source"]["bytes"]))
            elif "toolUse" in block:
                use = block["toolUse"]
                facts.append(("call", use["name"], use["toolUseId"], use["input"]))
            else:
                result = block["toolResult"]
                facts.append(("result", result["toolUseId"], result["content"][0]["text"]))
    return facts


async def write_ag2(log: MessageLog) -> None:
    calls = [ToolCallEvent("weather", id=name, arguments=json.dumps(args)) for name, args in CALLS]
    results = [
        ToolResultEvent(parent_id=name, name="weather", result=ToolResult(text)) for name, text in RESULTS
    ]
    storage = AgentStoresStorage(log)
    for event in (
        ModelRequest([TextInput("The weather?"), ImageInput(data=PNG, media_type="image/png")]),
        ModelResponse(tool_calls=ToolCallsEvent(calls)),
        *(ToolCallsEvent(calls), *calls, *results, ToolResultsEvent(results)),
        ModelResponse(ModelMessage("Rain and sun.")),
    ):
        await storage.save_event(event, context(THREAD))


async def read_ag2(log: MessageLog) -> Facts:
    facts: Facts = []
    for event in await AgentStoresStorage(log).get_history(cast("Any", THREAD)):
        if isinstance(event, ModelRequest):
            for part in event.parts:
                if isinstance(part, BinaryInput):
                    facts.append(("image", part.data))
                elif isinstance(part, TextInput):
                    facts.append(("user", part.content))
        elif isinstance(event, ModelResponse):
            facts += [
                ("call", call.name, call.id, call.serialized_arguments) for call in event.tool_calls.calls
            ]
            facts += [("assistant", event.content)] if event.content else []
        elif isinstance(event, ToolResultsEvent):
            facts += [
                ("result", one.parent_id, cast("Any", one.result.parts[0]).content) for one in event.results
            ]
    return facts


async def write_haystack(log: MessageLog) -> None:
    calls = [ToolCall("weather", dict(args), id=name) for name, args in CALLS]
    messages = [
        HaystackMessage.from_user(content_parts=["The weather?", ImageContent(IMAGE, mime_type="image/png")]),
        HaystackMessage.from_assistant(tool_calls=calls),
        *(HaystackMessage.from_tool(text, call) for (_, text), call in zip(RESULTS, calls, strict=True)),
        HaystackMessage.from_assistant("Rain and sun."),
    ]
    AgentStoresChatMessageStore(log).write_messages(THREAD, messages)


async def read_haystack(log: MessageLog) -> Facts:
    store = AgentStoresChatMessageStore(log)
    facts: Facts = []
    for message in store.retrieve_messages(THREAD):
        facts += [(message.role.value, text) for text in message.texts]
        facts += [("image", base64.b64decode(image.base64_image)) for image in message.images]
        facts += [("call", call.tool_name, call.id, call.arguments) for call in message.tool_calls]
        for result in message.tool_call_results:
            assert result.origin.tool_name == "weather"
            facts.append(("result", result.origin.id, result.result))
    return facts


async def write_pydantic_ai(log: MessageLog) -> None:
    messages: list[pydantic_ai.ModelMessage] = [
        pydantic_ai.ModelRequest(
            parts=[
                pydantic_ai.UserPromptPart(
                    ["The weather?", pydantic_ai.BinaryContent(PNG, media_type="image/png")]
                )
            ]
        ),
        pydantic_ai.ModelResponse(
            parts=[pydantic_ai.ToolCallPart("weather", args, tool_call_id=name) for name, args in CALLS]
        ),
        pydantic_ai.ModelRequest(
            parts=[pydantic_ai.ToolReturnPart("weather", text, tool_call_id=name) for name, text in RESULTS]
        ),
        pydantic_ai.ModelResponse(parts=[pydantic_ai.TextPart("Rain and sun.")]),
    ]
    store = AgentStoresConversationStore(log)
    await store.save(Conversation(conversation_id=THREAD, messages=messages))


async def read_pydantic_ai(log: MessageLog) -> Facts:
    facts: Facts = []
    conversation = await AgentStoresConversationStore(log).load(THREAD)
    assert conversation is not None
    for message in conversation.messages:
        for part in message.parts:
            if isinstance(part, pydantic_ai.ToolCallPart):
                facts.append(("call", part.tool_name, part.tool_call_id, part.args_as_dict()))
            elif isinstance(part, pydantic_ai.ToolReturnPart):
                facts.append(("result", part.tool_call_id, part.content))
            elif isinstance(part, pydantic_ai.TextPart):
                facts.append(("assistant", part.content))
            elif isinstance(part, pydantic_ai.UserPromptPart):
                for one in [part.content] if isinstance(part.content, str) else part.content:
                    image = isinstance(one, pydantic_ai.BinaryContent)
                    facts.append(("image", one.data) if image else ("user", one))  # type: ignore[union-attr]
    return facts


async def goes_on_in_pydantic_ai(log: MessageLog, model_url: str) -> None:
    store = AgentStoresConversationStore(log)
    conversation = await store.load(THREAD)
    agent = PydanticAgent(TestModel(custom_output_text=ANSWER))
    await store.save(await agent.run(QUESTION, conversation=conversation))


CONFIG: Any = {"configurable": {"thread_id": THREAD}}


def graph(log: MessageLog) -> Any:
    built = StateGraph(MessagesState)
    built.add_node("agent", lambda state: {"messages": [AIMessage(ANSWER)]})
    built.add_edge(START, "agent")
    return built.compile(checkpointer=AgentStoresSaver(log))


async def write_langgraph(log: MessageLog) -> None:
    image = {"type": "image", "base64": IMAGE, "mime_type": "image/png"}
    calls: list[Any] = [{"name": "weather", "id": name, "args": args} for name, args in CALLS]
    messages = [
        HumanMessage([{"type": "text", "text": "The weather?"}, image]),
        AIMessage("", tool_calls=calls),
        *(ToolMessage(text, tool_call_id=name) for name, text in RESULTS),
        AIMessage("Rain and sun."),
    ]
    await graph(log).aupdate_state(CONFIG, {"messages": messages})


async def read_langgraph(log: MessageLog) -> Facts:
    facts: Facts = []
    for message in (await graph(log).aget_state(CONFIG)).values["messages"]:
        if isinstance(message, ToolMessage):
            facts.append(("result", message.tool_call_id, message.content))
            continue
        for block in message.content_blocks:
            if block["type"] == "image":
                facts.append(("image", base64.b64decode(block["base64"])))
            elif block["type"] == "text":
                facts.append(("user" if message.type == "human" else "assistant", block["text"]))
            elif block["type"] == "tool_call":
                facts.append(("call", block["name"], block["id"], block["args"]))
    return facts


async def goes_on_in_langgraph(log: MessageLog, model_url: str) -> None:
    await graph(log).ainvoke({"messages": [HumanMessage(QUESTION)]}, CONFIG)


HERE: Any = {"app_name": "app", "user_id": "u", "session_id": "s"}


async def write_google_adk(log: MessageLog) -> None:
    image = types.Part(inline_data=types.Blob(data=PNG, mime_type="image/png"))
    calls = [types.FunctionCall(id=name, name="weather", args=args) for name, args in CALLS]
    answers = [
        types.FunctionResponse(id=name, name="weather", response={"result": text}) for name, text in RESULTS
    ]
    contents: list[tuple[str, list[types.Part]]] = [
        ("user", [types.Part(text="The weather?"), image]),
        ("agent", [types.Part(function_call=call) for call in calls]),
        ("agent", [types.Part(function_response=answer) for answer in answers]),
        ("agent", [types.Part(text="Rain and sun.")]),
    ]
    service = AgentStoresSessionService(log)
    session = await service.create_session(**HERE)
    for author, parts in contents:
        role = "model" if author == "agent" and parts[0].function_response is None else "user"
        content = types.Content(role=role, parts=parts)
        await service.append_event(session, Event(author=author, invocation_id="i", content=content))


async def read_google_adk(log: MessageLog) -> Facts:
    facts: Facts = []
    session = await AgentStoresSessionService(log).get_session(**HERE)
    assert session is not None
    for event in session.events:
        for part in (event.content and event.content.parts) or []:
            if (call := part.function_call) is not None:
                facts.append(("call", call.name, call.id, call.args))
            elif (answer := part.function_response) is not None:
                facts.append(("result", answer.id, (answer.response or {})["result"]))
            elif part.inline_data is not None:
                facts.append(("image", part.inline_data.data))
            else:
                facts.append(("user" if event.author == "user" else "assistant", part.text))
    return facts


class ADKModel(BaseLlm):
    """Answers."""

    model: str = "scripted"

    async def generate_content_async(self, llm_request: Any, stream: bool = False) -> Any:
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=ANSWER)]))


async def goes_on_in_google_adk(log: MessageLog, model_url: str) -> None:
    service = AgentStoresSessionService(log)
    stats = await ChatMessageStore(log, thread_id=THREAD).stats()
    if "google_adk" not in stats.metadata:
        await service.create_session(**HERE)
    agent = LlmAgent(name="agent", model=ADKModel())
    runner = Runner(app_name="app", agent=agent, session_service=service)
    message = types.Content(role="user", parts=[types.Part(text=QUESTION)])
    found = [event async for event in runner.run_async(user_id="u", session_id="s", new_message=message)]
    assert found


async def goes_on_in_strands(log: MessageLog, model_url: str) -> None:
    manager = AgentStoresSessionManager(THREAD, log)
    agent = StrandsAgent(model=ScriptedModel(), session_manager=manager, callback_handler=None)
    await agent.invoke_async(QUESTION)


async def goes_on_in_ag2(log: MessageLog, model_url: str) -> None:
    stream: Any = MemoryStream(AgentStoresStorage(log), id=cast("Any", THREAD))
    await AG2Agent("a", config=TestConfig(ANSWER)).ask(QUESTION, stream=stream)


async def goes_on_in_chat_agent(log: MessageLog, model_url: str) -> None:
    async with AsyncOpenAI(api_key="k", base_url=model_url, max_retries=0) as openai:
        agent = ChatAgent(
            chat_client=OpenAIChatClient("test-model", client=openai),
            chat_message_store_factory=lambda: ChatMessageStore(log, thread_id=THREAD),
        )
        await agent.run(QUESTION, thread=agent.get_new_thread())


WRITERS: dict[str, Callable[[MessageLog], Awaitable[None]]] = {
    "ChatMessage": write_neutral,
    "Pydantic AI": write_pydantic_ai,
    "LangGraph": write_langgraph,
    "Google ADK": write_google_adk,
    "Claude Agent SDK": write_claude,
    "Strands": write_strands,
    "AG2": write_ag2,
    "Haystack": write_haystack,
}
READERS: dict[str, Callable[[MessageLog], Awaitable[Facts]]] = {
    "ChatMessage": read_neutral,
    "Pydantic AI": read_pydantic_ai,
    "LangGraph": read_langgraph,
    "Google ADK": read_google_adk,
    "Claude Agent SDK": read_claude,
    "Strands": read_strands,
    "AG2": read_ag2,
    "Haystack": read_haystack,
}
GOES_ON: dict[str, Callable[[MessageLog, str], Awaitable[None]]] = {
    "Pydantic AI": goes_on_in_pydantic_ai,
    "LangGraph": goes_on_in_langgraph,
    "Google ADK": goes_on_in_google_adk,
    "Strands": goes_on_in_strands,
    "AG2": goes_on_in_ag2,
    "ChatAgent": goes_on_in_chat_agent,
}
"""A turn of an agent: the same question, and an answer."""
