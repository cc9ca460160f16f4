"""An agent of Strands whose conversation is kept in SQLite, and goes on in another process.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/strands_session.py``; it needs ``agent-stores[strands,database,openai]``.
"""

import os
import tempfile

from strands import Agent, tool
from strands.models.openai import OpenAIModel

from agent_stores.strands import AgentStoresSessionManager
from agent_stores.testing.local_model import local_model


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def main(url: str) -> None:
    for question in ("My name is Alice", "The weather in Oslo and Bergen?", "What's my name?"):
        model = OpenAIModel(model_id=os.environ.get("OPENAI_MODEL", "gpt-5-mini"))
        with AgentStoresSessionManager("user_123", url) as manager:  # anew for each question
            agent = Agent(model=model, tools=[weather], session_manager=manager, callback_handler=None)
            print("agent:", agent(question))
            print(len(agent.messages), "messages")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, local_model():
        main(f"sqlite:///{folder}/chat.db")
