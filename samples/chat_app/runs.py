"""One question and its answer, while the answer is being made: streamed, stopped, and left whole."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from about import title_of
from agent_stores import (
    AgentResponse,
    AgentThread,
    ChatAgent,
    ChatClient,
    ChatMessage,
    ChatMessageStore,
    ConflictError,
    ContextProvider,
    NotFoundError,
    StoreError,
    ToolCallContent,
)
from errors import Problem, explain
from threads import Threads
from tools import TOOLS

APP = "chat_app"
"""What the application keeps with a message is under this name in its additional properties."""

RunState = Literal["running", "stored", "stopped", "failed"]


@dataclass
class Run:
    """What is known of a run, for every window that shows it; written by the run's task only.

    Attributes:
        thread_id: the conversation.
        message: the user's message. It got its id when it was sent, so that it is never stored twice.
        text: the answer so far.
        tools: the names of the tools that were called so far.
        memories: the memories that the model was shown.
        state: ``stored`` when the turn is in the conversation, ``stopped`` when the user ended it, ``failed``
            when something went wrong, and nothing was added.
        problem: what went wrong.
    """

    thread_id: str
    message: ChatMessage
    text: str = ""
    tools: list[str] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)
    state: RunState = "running"
    problem: Problem | None = None

    @property
    def is_running(self) -> bool:
        """Whether the answer is still being made."""
        return self.state == "running"


async def answer(run: Run, threads: Threads, model: ChatClient, memory: ContextProvider | None) -> None:
    """Let the model answer, and keep the turn; never raises, but says in the run how it ended."""
    position = 0
    alive: asyncio.Task[None] | None = None
    try:
        conversation = await threads.open(run.thread_id)
        if conversation is None:
            raise NotFoundError(f"there is no conversation {run.thread_id!r}")
        store = threads.store(run.thread_id, conversation.about)
        if await _is_stored(run, store):  # sent again because the outcome was unknown
            run.state = "stored"
            return
        position = conversation.mark.position
        if conversation.about.ttl is not None:
            alive = asyncio.create_task(_keep_alive(threads, run.thread_id, conversation.about.ttl / 3))
        thread = AgentThread(message_store=store, context_provider=memory)
        agent = ChatAgent(model, conversation.about.instructions, tools=TOOLS)
        response: AgentResponse | None = None
        async with aclosing(agent.run_stream(run.message, thread=thread)) as updates:
            async for update in updates:
                run.tools += [part.name for part in update.contents if isinstance(part, ToolCallContent)]
                run.text += update.text
                response = update.response or response
        await _complete(run, threads, store, response)
        run.state = "stored"
    except asyncio.CancelledError:
        await _keep_what_was_said(run, threads, position)
    except Exception as error:
        run.problem = explain(error)
        run.state = "failed"
    finally:
        if alive is not None:
            alive.cancel()


async def _keep_alive(threads: Threads, thread_id: str, pause: float) -> None:
    """Renew a conversation's time-to-live during the run.

    If it expired, storing the answer would create a new thread without its settings or time-to-live.
    """
    while True:
        try:
            conversation = await threads.open(thread_id)
            if conversation is not None:
                await threads.store(thread_id).set_ttl(conversation.about.ttl)
        except StoreError as error:
            explain(error)
        await asyncio.sleep(pause)


async def _is_stored(run: Run, store: ChatMessageStore) -> bool:
    return await store.get(run.message.message_id or "") is not None


async def _complete(
    run: Run, threads: Threads, store: ChatMessageStore, response: AgentResponse | None
) -> None:
    """After the turn is stored: the memories that were used go beside the answer; a first title is given.

    Neither is worth telling the user that the turn failed, which it did not.
    """
    answers = [message for message in (response.messages if response else ()) if message.role == "assistant"]
    try:
        if run.memories and answers and answers[-1].message_id is not None:
            kept = answers[-1].replace(additional_properties={APP: {"memories": run.memories}})
            await store.replace(answers[-1].message_id, kept)
        await _give_title(run, threads)
    except StoreError as error:
        explain(error)


async def _give_title(run: Run, threads: Threads) -> None:
    conversation = await threads.open(run.thread_id)
    if conversation is not None and not conversation.about.title:
        about = replace(conversation.about, title=title_of(run.message.text))
        await threads.save(run.thread_id, about, before=conversation.about)


async def _keep_what_was_said(run: Run, threads: Threads, position: int) -> None:
    """After a stop: the question and the answer so far become a turn, whole, or nothing is added.

    The stop may have come while the whole turn was being stored. A conflict on `expected_position` means that
    another write came first; the loop then checks whether it was this turn.
    """
    store = threads.store(run.thread_id)
    try:
        while run.text.strip() and not await _is_stored(run, store):
            if await threads.open(run.thread_id) is None:
                raise NotFoundError(f"there is no conversation {run.thread_id!r}")
            said = ChatMessage("assistant", run.text, additional_properties={APP: {"stopped": True}})
            try:
                await store.add_messages([run.message, said], expected_position=position)
            except ConflictError as conflict:
                if not conflict.actual:
                    raise NotFoundError(f"there is no conversation {run.thread_id!r}") from None
                position = conflict.actual
        if run.text.strip():
            await _give_title(run, threads)
        run.state = "stopped"
    except Exception as error:
        run.problem = explain(error)
        run.state = "failed"
