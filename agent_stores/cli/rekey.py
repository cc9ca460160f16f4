"""`agent-stores rekey`: encrypts with the current key what is stored in the clear or with another key."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agent_stores.cli import render, store_access
from agent_stores.cli.exit_codes import ExitCode
from agent_stores.cli.keys import FILE_VARIABLE, VARIABLE
from agent_stores.encryption import RekeyReport
from agent_stores.encryption import rekey as rekey_tenant
from agent_stores.encryption.rekeying import encrypted_backend
from agent_stores.errors import AgentStoresError, ArgumentError, StoreRejectedError
from agent_stores.log import MessageLog
from agent_stores.urls import SCHEMES

_SHOWN = 20  # problems that are printed


def rekey(
    store: Annotated[
        str,
        typer.Option(
            "--store", envvar="AGENT_STORES_URL", metavar="URL", help=f"Where the threads are: {SCHEMES}."
        ),
    ],
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this tenant's threads; by default those of all."),
    ] = None,
    no_tenant: Annotated[
        bool, typer.Option("--no-tenant", help="Only the threads that have no tenant.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the report as JSON to standard output, for scripts.")
    ] = False,
) -> int:
    """Encrypt with the current key what is stored in the clear or with another key, attachments included.

    Applications may write meanwhile. Safe to stop at any moment, and to run again: the next run does the
    rest. What cannot be encrypted stays as it is and is reported; the exit status is then 4.
    """
    if tenant is not None and no_tenant:
        raise ArgumentError("--tenant and --no-tenant must not be given together")
    report = RekeyReport()

    async def work() -> None:
        async with store_access.opened(store) as log:
            if encrypted_backend(log.backend) is None:
                raise ArgumentError(f"there is no key: set {VARIABLE} or {FILE_VARIABLE}")
            tenants = [tenant] if tenant is not None or no_tenant else await _tenants(log)
            with _Bar() as bar:
                for each in tenants:
                    await rekey_tenant(log.backend, each, report=report, progress=bar.show)

    failure: BaseException | None = None
    try:
        asyncio.run(work())
    except (AgentStoresError, KeyboardInterrupt) as error:
        if not report.threads:
            raise
        failure = error
    if as_json:
        problems = [problem._asdict() for problem in report.problems]
        render.write_json({**dataclasses.asdict(report), "problems": problems})
    else:
        _print(report)
    if failure is not None:
        raise failure
    return ExitCode.OK if report.complete else ExitCode.BAD_INPUT


async def _tenants(log: MessageLog) -> list[str | None]:
    try:
        return [each async for each in store_access.all_tenants(log)]
    except StoreRejectedError as error:
        raise ArgumentError(f"{error}: give --tenant or --no-tenant") from None


class _Bar:
    """The progress on standard error, where that is a terminal."""

    def __init__(self) -> None:
        console = render.console(error=True)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("encrypting")

    def show(self, report: RekeyReport) -> None:
        """Show how far the work is."""
        text = f"{report.threads:,} threads, {report.messages:,} messages encrypted"
        text += f", {report.attachments:,} attachments" if report.attachments else ""
        self._progress.update(self._task, description=text)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _print(report: RekeyReport) -> None:
    """Say what was done, on standard error."""
    out = render.console(error=True)

    def line(text: str) -> None:
        out.print(render.clean(f"agent-stores: {text}"), soft_wrap=True)

    files = f", {render.count(report.attachments, 'attachment')}" if report.attachments else ""
    line(
        f"encrypted {render.count(report.messages, 'message')}{files}, and the metadata of "
        f"{render.count(report.metadata, 'thread')}; looked through {render.count(report.threads, 'thread')}"
    )
    for problem in report.problems[:_SHOWN]:
        place = f", position {problem.position}" if problem.position else ""
        line(f"thread {render.shorten(problem.thread_id, 60)!r}{place}: {problem.reason}")
    if not report.complete:
        left = report.damaged + report.too_large + report.failed_attachments
        line(
            f"{render.count(left, 'value')} and {render.count(report.failed, 'thread')} "
            "stay as they are; --json lists them"
        )
