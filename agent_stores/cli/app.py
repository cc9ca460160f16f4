"""The commands of `agent-stores`, their arguments, and how failures are reported."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from agent_stores._version import __version__
from agent_stores.backend import ThreadOrder
from agent_stores.cli import render, store_access
from agent_stores.cli.erase import erase
from agent_stores.cli.exit_codes import MEANINGS, ExitCode, exit_code
from agent_stores.cli.files import open_input, open_output
from agent_stores.cli.jsonl import ImportReport, export_thread, import_threads
from agent_stores.cli.keys import FILE_VARIABLE, VARIABLE
from agent_stores.cli.migrate import migrate
from agent_stores.cli.rekey import rekey
from agent_stores.errors import AgentStoresError, ArgumentError
from agent_stores.urls import SCHEMES

# The base of typer's errors in arguments, which is click's or its own, by its version.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[2])

_STATUS = "\n".join(f"{code:>4}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="agent-stores",
    help="List, export, migrate and delete the stored conversations of agents.",
    epilog=f"\b\nExit status:\n{_STATUS}\n\nThe keys of encrypted threads are read from {VARIABLE}, or from "
    f"the file that {FILE_VARIABLE} names.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="AGENT_STORES_URL",
        metavar="URL",
        help=f"The store: {SCHEMES}. "
        "Given in the environment, a password does not show in the list of processes.",
    ),
]
Tenant = Annotated[
    str | None, typer.Option(metavar="NAME", help="The tenant; by default threads without a tenant.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for scripts.")]
Prefix = Annotated[str, typer.Option(metavar="TEXT", help="Only threads whose id starts with TEXT.")]
SkipCorrupt = Annotated[
    bool, typer.Option("--skip-corrupt", help="Skip messages that cannot be read, with a warning.")
]


def run(arguments: Sequence[str]) -> int:
    """Run a command; report what fails in one line on standard error. Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where the locale's encoding lacks a character
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="agent-stores: %(message)s", level=logging.WARNING)
    try:
        result = app(args=list(arguments) or ["--help"], prog_name="agent-stores", standalone_mode=False)
        sys.stdout.flush()
        if not arguments:
            return ExitCode.USAGE
        return result if isinstance(result, int) else ExitCode.OK
    except AgentStoresError as error:
        return _report(str(error), exit_code(error))
    except BrokenPipeError:
        # The reader of our output has exited, as `head` does.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except OSError as error:
        return _report(str(error), ExitCode.FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", ExitCode.INTERRUPTED)
    except _UsageError as error:
        text = getattr(error, "format_message", error.__str__)()
        command = getattr(getattr(error, "ctx", None), "command_path", "agent-stores")
        return _report(f"{text.rstrip('.')} (see {command} --help)", ExitCode.USAGE)


def _report(text: str, status: ExitCode) -> int:
    with contextlib.suppress(OSError):
        print(f"agent-stores: {render.clean(' '.join(text.split()))}", file=sys.stderr)
    return status


def _note(text: str) -> None:
    """Print a line that is not a result."""
    print(f"agent-stores: {render.clean(text)}", file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def threads(
    store: StoreUrl,
    tenant: Tenant = None,
    prefix: Prefix = "",
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most N threads; all by default.")] = None,
    recent: Annotated[
        bool, typer.Option("--recent", help="The most recently written first; by id otherwise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List threads: messages, bytes, tokens, last time and expiry; with --json also metadata."""
    order: ThreadOrder = "recent" if recent else "id"

    async def work() -> None:
        async with store_access.opened(store) as log:
            found = store_access.all_threads(log, tenant, prefix=prefix, limit=limit, order=order)
            if as_json:
                async for thread in found:
                    render.write_json(thread)
            else:
                render.print_threads(render.console(), [thread async for thread in found])

    asyncio.run(work())


@app.command()
def tenants(store: StoreUrl, as_json: AsJson = False) -> None:
    """List the tenants that have threads, in order of name; an empty line means threads without a tenant."""

    async def work() -> None:
        async with store_access.opened(store) as log:
            async for tenant in store_access.all_tenants(log):
                if as_json:
                    render.write_json({"tenant": tenant})
                else:
                    print(render.clean(tenant or "").replace("\n", "\\u000a"))

    asyncio.run(work())


@app.command()
def fork(
    thread: Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.")],
    store: StoreUrl,
    new_thread: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The new thread's id; a random one by default.")
    ] = None,
    tenant: Tenant = None,
    at: Annotated[
        int | None, typer.Option(metavar="POSITION", help="Only up to this position; all by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a thread, or its beginning, to a new one, and print the new one's id."""

    async def work() -> None:
        async with store_access.opened(store) as log:
            await store_access.require_threads(log, tenant, [thread])
            branch = await store_access.thread_store(log, tenant, thread).fork(new_thread, at=at)
            stats = await branch.stats()
            if as_json:
                render.write_json({"thread_id": branch.thread_id, "messages": stats.messages})
            else:
                print(render.clean(branch.thread_id))

    asyncio.run(work())


@app.command()
def show(
    thread: Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.")],
    store: StoreUrl,
    tenant: Tenant = None,
    last: Annotated[int | None, typer.Option(metavar="N", help="Only the newest N messages.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Show whole messages, as they are stored.")] = False,
    skip_corrupt: SkipCorrupt = False,
    as_json: AsJson = False,
) -> None:
    """Show a thread's messages as they are stored; long texts are shortened."""

    async def work() -> None:
        async with store_access.opened(store) as log:
            await store_access.require_threads(log, tenant, [thread])
            source = store_access.thread_store(log, tenant, thread, skip_corrupt=skip_corrupt)
            messages = store_access.latest(source, last)
            if as_json:
                async for stored in messages:
                    render.write_json({"position": stored.position, "message": stored.message.to_dict()})
            elif raw:
                async for stored in messages:
                    render.print_raw(render.console(), stored)
            else:
                end = (await source.stats()).last_position
                await render.print_messages(render.console(), messages, last_position=end)

    asyncio.run(work())


@app.command()
def export(
    store: StoreUrl,
    threads: Annotated[
        list[str] | None, typer.Argument(metavar="[THREAD]...", help="The threads' ids; all by default.")
    ] = None,
    tenant: Tenant = None,
    prefix: Prefix = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - for standard output.")
    ] = "-",
    skip_corrupt: SkipCorrupt = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With a FILE: write a summary as JSON to standard output.")
    ] = False,
) -> None:
    """Export threads as JSON Lines, for `import`."""
    if threads and prefix:
        raise ArgumentError("threads and --prefix must not be given together")

    async def work() -> None:
        done = {"threads": 0, "bytes": 0}
        async with store_access.opened(store) as log:
            await store_access.require_threads(log, tenant, threads or ())
            with open_output(output) as file:

                async def write(thread_id: str) -> None:
                    source = store_access.thread_store(log, tenant, thread_id, skip_corrupt=skip_corrupt)
                    async for line in export_thread(source):
                        file.write(line)
                        done["bytes"] += len(line)
                    done["threads"] += 1

                for thread_id in dict.fromkeys(threads or ()):
                    await write(thread_id)
                if not threads:
                    async for thread in store_access.all_threads(log, tenant, prefix=prefix):
                        await write(thread.thread_id)
        if output != "-" and as_json:
            render.write_json(done)
        elif output != "-":
            what = f"{render.count(done['threads'], 'thread')}, {render.size(done['bytes'])}"
            _note(f"exported {what}, to {output}")

    asyncio.run(work())


@app.command("import")
def import_(
    store: StoreUrl,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; - for standard input.")],
    tenant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The tenant of the new threads; by default that of the file."),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, help="The number of messages added at once.")
    ] = 500,
    as_json: AsJson = False,
) -> None:
    """Import threads from JSON Lines. Safe to run again: no message is added twice."""
    report = ImportReport()

    async def work() -> None:
        async with store_access.opened(store, create=True) as log:
            with open_input(file) as (lines, size), render.progress_bar(size) as advance:
                await import_threads(log, lines, tenant=tenant, batch=batch, report=report, progress=advance)

    try:
        asyncio.run(work())
    except (AgentStoresError, OSError, KeyboardInterrupt):
        if report.messages:
            _note(f"{_imported(report)} before it failed; it can be run again, nothing is added twice")
        raise
    if as_json:
        render.write_json(report)
    else:
        _note(_imported(report))


def _imported(report: ImportReport) -> str:
    there = report.messages - report.added
    known = f", {there:,} of them there already" if there > 0 else ""
    messages, threads = render.count(report.messages, "message"), render.count(report.threads, "thread")
    return f"imported {messages} of {threads}{known}"


app.command()(migrate)
app.command()(erase)
app.command()(rekey)


@app.command()
def delete(
    threads: Annotated[list[str], typer.Argument(metavar="THREAD...", help="The threads' ids.")],
    store: StoreUrl,
    tenant: Tenant = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete threads with all their messages."""
    names = list(dict.fromkeys(threads))
    if not yes and not _confirm(_question(names)):
        return _report("not confirmed, nothing was deleted", ExitCode.INTERRUPTED)

    async def work() -> int:
        missing = []
        async with store_access.opened(store) as log:
            for name in names:
                deleted = await store_access.thread_store(log, tenant, name).delete_thread()
                if as_json:
                    render.write_json({"thread_id": name, "deleted": deleted})
                if not deleted:
                    missing.append(name)
        if not as_json:
            _note(f"deleted {render.count(len(names) - len(missing), 'thread')}")
        return _report(store_access.no_such(missing), ExitCode.NOT_FOUND) if missing else ExitCode.OK

    return asyncio.run(work())


def _question(names: Sequence[str]) -> str:
    more = f" and {render.count(len(names) - 5, 'other')}" if len(names) > 5 else ""
    return f"Delete {render.count(len(names), 'thread')}: {', '.join(names[:5])}{more}?"


def _confirm(question: str) -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        raise ArgumentError("there is no terminal to confirm on; give --yes")
    print(f"{render.clean(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@app.command()
def purge(store: StoreUrl, as_json: AsJson = False) -> None:
    """Remove expired threads, of every tenant."""

    async def work() -> int:
        removed = 0
        async with store_access.opened(store) as log:
            while count := await log.purge_expired():
                removed += count
        return removed

    removed = asyncio.run(work())
    if as_json:
        render.write_json({"threads": removed})
    else:
        _note(f"removed {render.count(removed, 'expired thread')}")


@app.command("demo")
def demo_(
    store: Annotated[
        str | None,
        typer.Option(
            envvar="AGENT_STORES_URL",
            metavar="URL",
            help="The store; an SQLite file by default.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the conversation afterwards.")] = False,
) -> int:
    """Hold a conversation, end the process, and continue it in another one.

    A local test model answers when neither OPENAI_API_KEY nor OPENAI_BASE_URL is set.
    """
    from agent_stores.cli import demo  # the model's server is of no use to the other commands

    return demo.run(store, keep=keep)
