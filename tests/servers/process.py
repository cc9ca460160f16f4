"""Run one server process on a data folder and a port of its own, break it, and leave nothing behind."""

from __future__ import annotations

import atexit
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypedDict, TypeVar

import psutil  # type: ignore[import-untyped, unused-ignore]

from .ports import PortLease
from .reaper import freeze, is_gone, kill_tree, reaper, signal_all, stop_tree, tree

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

_T = TypeVar("_T")
_LAUNCH_ATTEMPTS = 5
_POLL_SECONDS = 0.02
_KEPT_VARIABLES = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that run a command as another user."""

    user: int
    group: int
    extra_groups: list[int]


class ServerError(RuntimeError):
    """A test server did not do what it was told."""


class ServerProcess(ABC):
    """A server on loopback, with a temporary data folder.

    Subclasses say how to prepare the folder, how to start the server and how to find out that it answers.
    Servers are context managers; those still running at exit are stopped then.
    """

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    ready_timeout: ClassVar[float] = 60.0

    def __init__(self, *, port_offsets: Sequence[int] = ()) -> None:
        """Describe a server; `start` makes its folder, takes a port and runs it."""
        self._port_offsets = port_offsets
        self._lease: PortLease | None = None
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user: pwd.struct_passwd | None = None
        self._log_start = 0

    # What subclasses say

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the new data folder; called once."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command that runs the server in the foreground on `folder` and `port`."""

    @abstractmethod
    def _probe(self) -> None:
        """Raise any exception while the server does not answer yet."""

    # What tests use

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, the same for the server's whole life."""
        if self._lease is None:
            raise ServerError(f"{self.kind}: not started.")
        return self._lease.port

    @property
    def folder(self) -> Path:
        """The server's folder, gone after `close`."""
        if self._folder is None:
            raise ServerError(f"{self.kind}: not started.")
        return self._folder

    @property
    def pid(self) -> int | None:
        """The main process's id, or None while the server is down."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def processes(self) -> list[psutil.Process]:
        """The main process and its children (`psutil.Process`); empty while the server is down."""
        pid = self.pid
        return [] if pid is None else tree(psutil.Process(pid))

    def start(self) -> Self:
        """Make the folder, run the server and return once it answers."""
        if self._folder is not None:
            raise ServerError(f"{self.kind}: already started.")
        self._folder = make_folder(self.kind, self._user)
        _live.append(self)
        try:
            reaper.watch(self.folder, None, self.stop_signal)
            self._prepare()
            for attempt in range(1, _LAUNCH_ATTEMPTS + 1):
                self._lease = PortLease(*self._port_offsets)
                try:
                    self._launch()
                    break
                except ServerError:
                    if attempt == _LAUNCH_ATTEMPTS or not self._port_was_taken():
                        raise
                    self._lease.release()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop the server and remove its folder. Calling this twice is fine."""
        if self._folder is None:
            return
        self._stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        reaper.forget(self._folder)
        self._folder = None
        if self._lease is not None:
            self._lease.release()
        if self in _live:
            _live.remove(self)

    def kill(self) -> None:
        """Kill (SIGKILL) the server's processes, as a crash would; the data and the port stay."""
        if self._process is not None and self._process.poll() is None:
            kill_tree(psutil.Process(self._process.pid))
        self._collect()

    def restart(self) -> None:
        """Run the server again on the same data and port; a running one is stopped in good order first."""
        self._stop()
        for attempt in range(1, _LAUNCH_ATTEMPTS + 1):
            try:
                return self._launch()
            except ServerError:
                if attempt == _LAUNCH_ATTEMPTS or not self._port_was_taken():
                    raise
                time.sleep(0.2 * attempt)

    def pause(self) -> None:
        """Stop (SIGSTOP) the server's processes: it accepts connections and answers nothing, as if hung."""
        if self.pid is None:
            raise ServerError(f"{self.kind}: not running.")
        frozen = freeze(psutil.Process(self.pid))
        wait_for(
            lambda: all(is_gone(process) or process.status() == psutil.STATUS_STOPPED for process in frozen),
            timeout=10,
            what=f"{self.kind}: paused",
        )

    def resume(self) -> None:
        """Let a paused server go on; without effect on one that is running or down."""
        signal_all(self.processes(), signal.SIGCONT)

    def log_tail(self, lines: int = 40) -> str:
        """The end of what the server wrote to its log, for error messages."""
        return "\n".join(self._log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        """Start the server unless it runs already."""
        return self if self._folder is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server and remove its folder."""
        self.close()

    # How it works

    def _run(self, command: Sequence[str | Path], *, timeout: float = 60.0) -> None:
        """Run a tool of the server's to its end, for `_prepare`."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=self.folder,
            env=self._environment(),
            **as_user(self._user),
        )
        try:
            reaper.watch(self.folder, process.pid, self.stop_signal)
            output, _ = process.communicate(timeout=timeout)
        except BaseException:
            kill_tree(psutil.Process(process.pid))
            process.wait()
            raise
        finally:
            reaper.watch(self.folder, None, self.stop_signal)
        if process.returncode != 0:
            tail = output.decode(errors="replace")[-4000:]
            raise ServerError(f"{self.kind}: {Path(command[0]).name} failed ({process.returncode}):\n{tail}")

    def _launch(self) -> None:
        log = self.folder / "server.log"
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env=self._environment(),
                **as_user(self._user),
            )
        reaper.watch(self.folder, self._process.pid, self.stop_signal)
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.ready_timeout
        while True:
            if process.poll() is not None:
                raise ServerError(f"{self.kind}: ended at start ({process.returncode}):\n{self.log_tail()}")
            try:
                return self._probe()
            except Exception as error:
                if time.monotonic() > deadline:
                    message = f"{self.kind}: no answer after {self.ready_timeout:g} s:\n{self.log_tail()}"
                    raise ServerError(message) from error
            time.sleep(_POLL_SECONDS)

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            stop_tree(psutil.Process(self._process.pid), self.stop_signal)
        self._collect()

    def _collect(self) -> None:
        """Take leave of a process that has ended."""
        if self._process is not None:
            self._process.wait(timeout=30)
            self._process = None
            reaper.watch(self.folder, None, self.stop_signal)

    def _log(self) -> str:
        try:
            text = (self.folder / "server.log").read_bytes()[self._log_start :]
        except FileNotFoundError:
            return ""
        return text.decode(errors="replace")

    def _port_was_taken(self) -> bool:
        return "address already in use" in self._log().lower()

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return {**kept, "LC_ALL": "C", "TMPDIR": str(self.folder)}


def wait_for(
    condition: Callable[[], _T | None], *, timeout: float, what: str, interval: float = _POLL_SECONDS
) -> _T:
    """Call `condition` until it returns something true, and return that; errors count as not yet."""
    deadline = time.monotonic() + timeout
    while True:
        failure: Exception | None = None
        try:
            if result := condition():
                return result
        except Exception as error:
            failure = error
        if time.monotonic() > deadline:
            raise ServerError(f"Not within {timeout:g} s: {what}.") from failure
        time.sleep(interval)


def planted_password(kind: str) -> str:
    """A password that is easy to find where it must not be; safe in a URL, another one each time."""
    return f"planted-{kind}-{secrets.token_hex(6)}"


def packaged(package: str, pattern: str) -> Path | None:
    """The last file, in order of names, that matches a pattern inside an installed package, if any."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    found = sorted(path for place in places or () for path in Path(place).glob(pattern))
    return found[-1] if found else None


def as_user(user: pwd.struct_passwd | None) -> Credentials:
    """What makes `subprocess` run a command as a user; None is the present one."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def make_folder(kind: str, user: pwd.struct_passwd | None) -> Path:
    """A new temporary folder, owned by a user and where that user can reach it."""
    bases = [Path(tempfile.gettempdir()).resolve(), Path("/", "tmp"), Path("/", "var", "tmp")]
    if user is not None:
        bases = [base for base in bases if all(part.stat().st_mode & 0o001 for part in (base, *base.parents))]
    folder = Path(tempfile.mkdtemp(prefix=f"agent-stores-{kind}-", dir=bases[0]))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


_live: list[ServerProcess] = []
os.register_at_fork(after_in_child=_live.clear)


@atexit.register
def _close_all() -> None:
    for server in reversed(list(_live)):
        server.close()
