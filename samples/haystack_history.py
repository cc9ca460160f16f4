"""A chat of Haystack whose messages are kept in SQLite, and goes on in another process.

Without an OpenAI key in the environment, a local test model answers.

Run it with ``python samples/haystack_history.py``; it needs ``agent-stores[haystack,database,openai]``.
"""

import os
import tempfile

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from haystack_experimental.components.retrievers import ChatMessageRetriever
from haystack_experimental.components.writers import ChatMessageWriter

from agent_stores.haystack import AgentStoresChatMessageStore
from agent_stores.testing.local_model import local_model


def main(url: str) -> None:
    model = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
    generator = OpenAIChatGenerator(api_key=Secret.from_env_var("OPENAI_API_KEY"), model=model)
    for question in ("My name is Alice", "What's my name?"):
        with AgentStoresChatMessageStore(url) as store:  # anew for each question
            asked = [ChatMessage.from_user(question)]
            shown = ChatMessageRetriever(store).run("user_123", current_messages=asked)
            replies = generator.run(messages=shown["messages"])["replies"]
            ChatMessageWriter(store).run("user_123", messages=asked + replies)
            print("assistant:", replies[0].text)
            print(store.count_messages("user_123"), "messages")
    generator.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, local_model():
        main(f"sqlite:///{folder}/chat.db")
