"""A LangGraph graph in SQLite: its messages are a conversation that other frameworks read and add to.

No model is called. Run it with ``python samples/langgraph_saver.py``; it needs
``agent-stores[langgraph,database]`` and ``langgraph``.
"""

import asyncio
import tempfile

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from agent_stores import ChatMessage
from agent_stores.database import DatabaseChatMessageStore
from agent_stores.langgraph import AgentStoresSaver


def answer(state: MessagesState) -> MessagesState:
    return {"messages": [AIMessage(f"You said: {state['messages'][-1].content}")]}


async def main(url: str) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "user_123"}}
    async with DatabaseChatMessageStore(url, thread_id="user_123") as store:
        await store.add_messages([ChatMessage("user", "Hello from another framework.")])
    async with AgentStoresSaver(url) as saver:
        graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(saver)
        await graph.ainvoke({"messages": [HumanMessage("My name is Alice.")]}, config)
        for message in (await graph.aget_state(config)).values["messages"]:
            print(f"{message.type}: {message.content}")
        print(len([state async for state in graph.aget_state_history(config)]), "checkpoints")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
