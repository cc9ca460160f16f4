"""`agent-stores migrate`: copies conversations that other libraries stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from agent_stores.cli import render, store_access
from agent_stores.cli.exit_codes import ExitCode
from agent_stores.cli.files import open_output
from agent_stores.errors import AgentStoresError, ArgumentError, NotFoundError
from agent_stores.importers.migrate import MigrationOptions
from agent_stores.importers.migrate import migrate as run_migration
from agent_stores.importers.registry import SOURCE_URLS, open_source
from agent_stores.importers.report import MigrationReport
from agent_stores.importers.thread_id_map import ThreadIdMap, read_id_map
from agent_stores.log import MessageLog
from agent_stores.urls import SCHEMES, open_log

_SHOWN = 20  # problems that are printed


def migrate(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            envvar="AGENT_STORES_SOURCE",
            metavar="FRAMEWORK+URL",
            help=f"The source: {SOURCE_URLS}. "
            "Given in the environment, a password does not show in the list of processes.",
        ),
    ],
    target: Annotated[
        str,
        typer.Option("--to", envvar="AGENT_STORES_URL", metavar="URL", help=f"The target: {SCHEMES}."),
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--from-option",
            metavar="NAME=VALUE",
            help="A setting of the framework, such as key_prefix; may be repeated.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The tenant of the new threads; by default that of the source."),
    ] = None,
    thread: Annotated[
        list[str] | None,
        typer.Option("--thread", metavar="ID", help="Only this thread of the source; may be repeated."),
    ] = None,
    thread_prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="Prepended to the thread ids in the target.")
    ] = "",
    id_map_file: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FILE",
            help="A JSON object from ids of the source to ids of the target; null skips a thread.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most N threads.")] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Also append to threads of the target that hold only other messages."),
    ] = False,
    keep_expiry: Annotated[
        bool,
        typer.Option(
            "--keep-expiry/--no-expiry",
            help="Whether a thread expires in the target when it would have in the source.",
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and compare, but write nothing.")] = False,
    report_file: Annotated[
        str | None, typer.Option("--report", metavar="FILE", help="Write a report as JSON to this file.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the report as JSON to standard output, for scripts.")
    ] = False,
) -> int:
    """Copy conversations that another library stored; safe to stop and to run again.

    Never writes to the source. A message that cannot be read, and a thread that exists in the target with
    other messages, is left out and reported; the exit status is then 4.
    """
    options = MigrationOptions(
        tenant=tenant,
        id_map=ThreadIdMap(
            prefix=thread_prefix, renamed=None if id_map_file is None else read_id_map(id_map_file)
        ),
        only=None if thread is None else frozenset(thread),
        limit=limit,
        merge=merge,
        keep_expiry=keep_expiry,
        dry_run=dry_run,
    )
    opened = open_source(source, _pairs(option or ()))
    report = MigrationReport(f"{opened.name}+{opened.location}", "", dry_run)

    async def work() -> None:
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(opened.aclose)
            log = await cleanup.enter_async_context(_target(target, dry_run=dry_run))
            report.target = open_log(target).location
            with ProgressBar(render.console(error=True), dry_run=dry_run) as bar:
                await run_migration(opened, log, options, report=report, progress=bar)

    with contextlib.ExitStack() as cleanup:
        # Opened first: a report that cannot be written is to be known before the work is done.
        file = None if report_file is None else cleanup.enter_context(open_output(report_file))
        failure: BaseException | None = None
        try:
            asyncio.run(work())
        except (AgentStoresError, OSError, KeyboardInterrupt) as error:
            failure = error
            report.error = str(error) if isinstance(error, AgentStoresError) else type(error).__name__
        if file is not None:
            file.write(json.dumps(report.to_dict(), indent=2).encode() + b"\n")
    if as_json:
        render.write_json(report.to_dict())
    elif failure is None or report.threads:
        _print(report)
    if failure is not None:
        raise failure
    return ExitCode.BAD_INPUT if report.skipped or report.threads_skipped else ExitCode.OK


def _pairs(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise ArgumentError(f"--from-option must be NAME=VALUE, got {one[:40]!r}")
        found[name.replace("-", "_")] = value
    return found


@contextlib.asynccontextmanager
async def _target(url: str, *, dry_run: bool) -> AsyncIterator[MessageLog]:
    """The target's log. A dry run makes no file and no tables: where there are none, the target is empty."""
    if dry_run and not await _is_made(url):
        url = "memory:"
    async with store_access.opened(url, create=not dry_run) as log:
        yield log


async def _is_made(url: str) -> bool:
    scheme = url.partition("://")[0].partition("+")[0] if "://" in url else "sqlite"
    if url.rstrip("/") == "memory:" or scheme not in ("sqlite", "postgresql", "postgres", "mariadb", "mysql"):
        return True
    await open_log(url).aclose()  # says what is wrong with a URL, as it would for the migration itself
    from agent_stores.importers.database_reader import DatabaseReader

    reader = DatabaseReader(url)
    try:
        return await reader.has_table("agent_stores_threads")
    except NotFoundError:
        return False
    finally:
        await reader.aclose()


class ProgressBar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, console: Console, *, dry_run: bool) -> None:
        self._messages = 0
        self._what = "reading" if dry_run else "migrating"
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("threads, {task.fields[messages]:,} messages"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(self._what, total=None, messages=0)

    def begin(self, threads: int | None) -> None:
        """See `Progress.begin`."""
        self._progress.update(self._task, total=threads)

    def advance(self, *, threads: int = 0, messages: int = 0) -> None:
        """See `Progress.advance`."""
        self._messages += messages
        self._progress.update(self._task, advance=threads, messages=self._messages)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _print(report: MigrationReport) -> None:
    """Say what was done, on standard error."""
    out = render.console(error=True)
    for line in _lines(report):
        out.print(render.clean(f"agent-stores: {line}"), soft_wrap=True)


def _lines(report: MigrationReport) -> Iterator[str]:
    verb = "would add" if report.dry_run else "added"
    there = f", {report.present:,} were there already" if report.present else ""
    read = f"read {render.count(report.threads, 'thread')}, {render.size(report.bytes)}"
    yield f"{read}; {verb} {render.count(report.added, 'message')}{there}"
    for problem in report.problems[:_SHOWN]:
        location = "" if problem.location is None else f", {problem.location}"
        yield f"thread {render.shorten(problem.thread_id, 60)!r}{location}: {problem.reason}"
    if report.problem_count > _SHOWN:
        yield f"and {report.problem_count - _SHOWN:,} more problems; --report FILE lists them"
    if report.skipped:
        yield f"{render.count(report.skipped, 'message')} left out"
    if report.threads_skipped:
        yield f"{render.count(report.threads_skipped, 'thread')} left out, or not taken over to the end"
    if report.unrecognized:
        yield f"{report.unrecognized:,} keys passed over that are no conversations of this kind"
    if not report.complete:
        yield "not complete; it can be run again, nothing is added twice"
