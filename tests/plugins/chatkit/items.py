"""Items of ChatKit's threads of every kind."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from chatkit.types import (
    Annotation,
    AssistantMessageContent,
    AssistantMessageItem,
    ClientToolCallItem,
    CustomTask,
    EndOfTurnItem,
    FileAttachment,
    GeneratedImage,
    GeneratedImageItem,
    HiddenContextItem,
    ImageAttachment,
    InferenceOptions,
    SDKHiddenContextItem,
    TaskItem,
    ThoughtTask,
    ThreadItem,
    ToolChoice,
    URLSource,
    UserMessageItem,
    UserMessageTagContent,
    UserMessageTextContent,
    WidgetItem,
    Workflow,
    WorkflowItem,
)
from chatkit.widgets import Card, Text
from pydantic import AnyUrl

AT = datetime(2026, 11, 28, 10, 0, 0, 123456, timezone.utc)
PICTURE = ImageAttachment(
    id="atc_1",
    name="a.png",
    mime_type="image/png",
    preview_url=AnyUrl("https://e.org/a.png"),
    metadata={"n": 1.0},
)
FILE = FileAttachment(id="atc_2", name="a.txt", mime_type="text/plain")


def base(number: int) -> dict[str, Any]:
    return {"id": f"item_{number}", "thread_id": "t", "created_at": AT}


def user(number: int, *texts: str, **more: Any) -> UserMessageItem:
    content = [UserMessageTextContent(text=text) for text in texts]
    return UserMessageItem(
        **{"inference_options": InferenceOptions(), "content": content, **base(number), **more}
    )


def assistant(number: int, *texts: str) -> AssistantMessageItem:
    return AssistantMessageItem(
        **base(number), content=[AssistantMessageContent(text=text) for text in texts]
    )


ITEMS: list[ThreadItem] = [
    user(1, "Hello", attachments=[PICTURE, FILE], quoted_text="Earlier"),
    user(
        2,
        content=[
            UserMessageTextContent(text="For "),
            UserMessageTagContent(id="u1", text="Alice", data={"a": [1, 1.0]}, group="people"),
        ],
        inference_options=InferenceOptions(tool_choice=ToolChoice(id="search"), model="m"),
    ),
    AssistantMessageItem(
        **base(3),
        content=[
            AssistantMessageContent(
                text="Here.",
                annotations=[Annotation(source=URLSource(title="E", url="https://e.org"), index=3)],
            ),
            AssistantMessageContent(text=" And here."),
        ],
    ),
    ClientToolCallItem(**base(4), call_id="c1", name="position", arguments={"exact": True}),
    ClientToolCallItem(
        **base(5), call_id="c2", name="p", arguments={}, status="completed", output={"x": 1.0}
    ),
    ClientToolCallItem(**base(6), call_id="c3", name="p", arguments={}, status="completed"),
    WidgetItem(**base(7), widget=Card(children=[Text(value="Title", weight="medium")]), copy_text="Title"),
    GeneratedImageItem(**base(8), image=GeneratedImage(id="i1", url="https://e.org/i.png")),
    GeneratedImageItem(**base(9)),
    WorkflowItem(**base(10), workflow=Workflow(type="reasoning", tasks=[ThoughtTask(content="Hm.")])),
    TaskItem(**base(11), task=CustomTask(title="t", icon="search")),
    HiddenContextItem(**base(12), content={"any": [None]}),
    SDKHiddenContextItem(**base(13), content="cancelled"),
    EndOfTurnItem(**base(14)),
    user(15),
    assistant(16),
    assistant(17, ""),
    assistant(18, "naive").model_copy(update={"created_at": datetime(2026, 1, 1)}),
]
