"""A chain of LangChain whose conversation is kept in SQLite, one conversation for each session id.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/langchain_history.py``; it needs ``agent-stores[langchain,database]`` and
langchain-openai.
"""

import os
import tempfile
import warnings

from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI

from agent_stores.langchain import AgentStoresChatMessageHistory
from agent_stores.testing.local_model import local_model

warnings.filterwarnings("ignore", "RunnableWithMessageHistory is deprecated")


def main(url: str) -> None:
    def history(session_id: str) -> AgentStoresChatMessageHistory:
        return AgentStoresChatMessageHistory(session_id, url, max_messages=100, ttl=30 * 24 * 3600)

    model = ChatOpenAI(model=os.environ.get("OPENAI_MODEL", "gpt-5-mini"))
    for session_id, question in (
        ("alice", "Hello, my name is Alice"),
        ("bob", "What's my name?"),
        ("alice", "What's my name?"),
    ):
        chain = RunnableWithMessageHistory(model, history)  # anew each time: all that is kept is in the store
        answer = chain.invoke(question, {"configurable": {"session_id": session_id}})
        print(f"{session_id}: {answer.content}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, local_model():
        main(f"sqlite:///{folder}/chat.db")
