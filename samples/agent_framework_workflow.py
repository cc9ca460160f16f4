"""Agent Framework: a workflow from a checkpoint. Needs ``agent-stores[agent-framework,database]``."""

import asyncio
import tempfile

from agent_framework import WorkflowBuilder, WorkflowContext, executor

from agent_stores.agent_framework import AgentStoresCheckpointStorage

printer_works = iter([False, True])


@executor(id="write")
async def write(title: str, context: WorkflowContext[str]) -> None:
    """Write a text."""
    await context.send_message(f"{title}: ...")


@executor(id="print")
async def press(text: str, context: WorkflowContext[str, str]) -> None:
    """Print it, if the printer works."""
    await context.yield_output(f"printed {text}" if next(printer_works) else str(1 / 0))


async def main(url: str) -> None:
    for _ in range(2):  # the second one could be another process
        async with AgentStoresCheckpointStorage(url) as checkpoints:
            builder = WorkflowBuilder(name="paper", start_executor=write, checkpoint_storage=checkpoints)
            workflow = builder.add_edge(write, press).build()
            latest = await checkpoints.get_latest(workflow_name="paper")
            try:
                run = workflow.run(checkpoint_id=latest.checkpoint_id) if latest else workflow.run("poem")
                print(*(await run).get_outputs())
            except ZeroDivisionError as error:
                print("stopped:", error)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"sqlite:///{folder}/chat.db"))
