"""`agent-stores erase`: removes threads, their forks and what a provider remembers, and writes a receipt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from agent_stores.cli import render, store_access
from agent_stores.cli.exit_codes import ExitCode
from agent_stores.cli.files import open_output
from agent_stores.erasing import Erasable
from agent_stores.erasing import erase as erase_threads
from agent_stores.errors import ArgumentError
from agent_stores.urls import SCHEMES


def erase(
    store: Annotated[
        str,
        typer.Option(
            "--store", envvar="AGENT_STORES_URL", metavar="URL", help=f"Where the threads are: {SCHEMES}."
        ),
    ],
    threads: Annotated[
        list[str] | None, typer.Argument(metavar="[THREAD]...", help="The threads' ids.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose threads; by default those without a tenant.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            metavar="NAME=VALUE",
            help="Instead, threads whose metadata has this value, as JSON or text; all of several.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all-threads", help="Instead, all threads of the tenant.")
    ] = False,
    mem0_user: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Also what mem0's platform remembers of this user; MEM0_API_KEY."),
    ] = None,
    mem0_application: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what the user told this application.")
    ] = None,
    mem0_host: Annotated[
        str | None, typer.Option(metavar="URL", help="The platform's address, if it is not mem0's own.")
    ] = None,
    scrub: Annotated[
        bool,
        typer.Option("--scrub/--no-scrub", help="Whether SQLite's file is rewritten, without traces."),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look and count, but remove nothing.")] = False,
    receipt_file: Annotated[
        str | None, typer.Option("--receipt", metavar="FILE", help="Write the receipt as JSON to this file.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the receipt as JSON to standard output, for scripts.")
    ] = False,
) -> int:
    """Erase threads and the forks made from them, look again, write a receipt. Safe to repeat.

    The variable AGENT_STORES_RECEIPT_KEY signs the receipt.
    """
    choice: dict[str, Any] = {
        "thread_ids": threads or None,
        "metadata": _values(metadata) if metadata else None,
        "all_threads": everything,
    }
    if not (dry_run or yes) and not _is_confirmed():
        print("agent-stores: not confirmed, nothing was erased", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if mem0_user is None and (mem0_application or mem0_host):
        raise ArgumentError("--mem0-application and --mem0-host must be given together with --mem0-user")

    async def work() -> dict[str, Any]:
        providers: list[Erasable] = []
        if mem0_user is not None:
            from agent_stores.mem0 import Mem0Provider

            providers.append(Mem0Provider(user_id=mem0_user, application_id=mem0_application, host=mem0_host))
        async with store_access.opened(store) as log:
            try:
                return await erase_threads(
                    log,
                    tenant=tenant,
                    providers=providers,
                    scrub=scrub,
                    dry_run=dry_run,
                    key=os.environ.get("AGENT_STORES_RECEIPT_KEY") or None,
                    **choice,
                )
            finally:
                for provider in providers:
                    await provider.aclose()  # type: ignore[attr-defined]

    with contextlib.ExitStack() as cleanup:
        # Opened first: a receipt that cannot be written is to be known before anything is erased.
        file = None if receipt_file is None else cleanup.enter_context(open_output(receipt_file))
        receipt = asyncio.run(work())
        if file is not None:
            file.write(json.dumps(receipt, indent=2).encode() + b"\n")
    if as_json:
        render.write_json(receipt)
    else:
        print(f"agent-stores: {render.clean(_summary(receipt))}", file=sys.stderr)
    return ExitCode.OK if dry_run or receipt["complete"] else ExitCode.FAILED


def _is_confirmed() -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        raise ArgumentError("there is no terminal to confirm on; give --yes, or --dry-run")
    print("Erase these threads and their forks for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _values(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of metadata; what is not JSON is text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise ArgumentError(f"--metadata must be NAME=VALUE, got {pair!r}")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _summary(receipt: dict[str, Any]) -> str:
    counts = receipt["remaining" if receipt["dry_run"] else "removed"]
    forks = f", {counts['forks']:,} of them forks" if counts["forks"] else ""
    what = f"{render.count(counts['threads'], 'thread')}{forks}, {render.size(counts['bytes'])}"
    memories = sum(each["found"] for each in receipt["providers"])
    what += f", {memories:,} memories" if receipt["providers"] else ""
    if receipt["dry_run"]:
        return f"would erase {what}"
    return f"erased {what}" + ("" if receipt["complete"] else "; not complete, run it again")
