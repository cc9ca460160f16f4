"""End servers and remove their folders, also when the test run dies without a chance to clean up.

While any server runs, a small helper process reads a pipe from the test run. The pipe ends with the run, for
whatever reason (exit, Ctrl-C, SIGTERM, SIGKILL): then the helper stops what is still registered.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

_STOP_TIMEOUT = 15.0


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended (a zombie that was not collected yet counts as ended)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def tree(root: psutil.Process) -> list[psutil.Process]:
    """The process and all of its descendants; empty when it has ended."""
    if is_gone(root):
        return []
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to every process of a list that still exists."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def freeze(root: psutil.Process) -> list[psutil.Process]:
    """Stop (SIGSTOP) a process and its descendants, the parent first so that it starts no further ones."""
    signal_all([root], signal.SIGSTOP)
    frozen = tree(root)
    signal_all(frozen[1:], signal.SIGSTOP)
    return frozen


def kill_tree(root: psutil.Process) -> None:
    """Kill (SIGKILL) a process and its descendants at one moment, and wait until all have ended."""
    victims = freeze(root)
    signal_all(victims, signal.SIGKILL)
    _wait_gone(victims, _STOP_TIMEOUT)


def stop_tree(root: psutil.Process, stop_signal: signal.Signals) -> None:
    """Ask a process to end, wait for it and its descendants, and kill what is left."""
    members = tree(root)
    signal_all(members, signal.SIGCONT)
    signal_all([root], stop_signal)
    _wait_gone(members, _STOP_TIMEOUT)
    for member in members:
        kill_tree(member)


def _wait_gone(processes: list[psutil.Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not all(is_gone(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.01)


class _Reaper:
    """The test run's end of the pipe. The helper process lives while anything is watched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: subprocess.Popen[str] | None = None
        self._watched: set[Path] = set()
        os.register_at_fork(after_in_child=self._abandon)

    def watch(self, folder: Path, pid: int | None, stop_signal: signal.Signals) -> None:
        """Promise that the folder, and the process where given, will not outlive this process."""
        with self._lock:
            if self._helper is None:
                self._helper = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    cwd=Path(__file__).parents[len(__name__.split(".")) - 1],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    text=True,
                )
            self._watched.add(folder)
            self._send({"folder": str(folder), "watch": True, "pid": pid, "signal": int(stop_signal)})

    def forget(self, folder: Path) -> None:
        """Take back the promise: the folder and its process have been dealt with."""
        with self._lock:
            if folder not in self._watched:
                return
            self._watched.remove(folder)
            self._send({"folder": str(folder), "watch": False})
            if not self._watched and self._helper is not None:
                helper, self._helper = self._helper, None
                with contextlib.suppress(BrokenPipeError):
                    helper.communicate()

    def _send(self, message: dict[str, str | int | None]) -> None:
        pipe = self._helper.stdin if self._helper is not None else None
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.write(json.dumps(message) + "\n")
                pipe.flush()

    def _abandon(self) -> None:
        """In a forked child: let go of the pipe, or the helper would wait for that child too."""
        if self._helper is not None and self._helper.stdin is not None:
            self._helper.stdin.close()
        self._lock = threading.Lock()
        self._helper = None
        self._watched = set()


reaper = _Reaper()
"""The one reaper of this process."""


def main() -> None:
    """Read what to watch until the pipe ends, then end it all."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[str, tuple[psutil.Process | None, signal.Signals]] = {}
    for line in sys.stdin:
        message = json.loads(line)
        if not message["watch"]:
            watched.pop(message["folder"], None)
            continue
        process = None
        if message["pid"] is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(message["pid"])
        watched[message["folder"]] = (process, signal.Signals(message["signal"]))
    for folder, (process, stop_signal) in watched.items():
        if process is not None:
            stop_tree(process, stop_signal)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
