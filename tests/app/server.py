"""The chat application as `make app` runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
APP = ROOT / "samples" / "chat_app" / "app.py"


class AppServer:
    """A server of the application; can be stopped and started again on the same port and store.

    Args:
        folder: where it keeps its files.
        port: where it listens.
        environment: settings of the application.
    """

    def __init__(self, folder: Path, port: int, **environment: str) -> None:
        self._port = port
        self._log = folder / "app.log"
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "MEM0_", "CHAT_APP_", "STREAMLIT_", "AGENT_STORES_"))
        }
        self._environment = {
            **clean,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "providers" / "mem0"))),
            "CHAT_APP_FOLDER": str(folder / "data"),
            "MEM0_DIR": str(folder / "mem0"),
            "HOME": str(folder),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://localhost:{self._port}"

    @property
    def store_url(self) -> str:
        """Where the conversations are."""
        return f"sqlite:///{self._environment['CHAT_APP_FOLDER']}/chat.db"

    @property
    def log(self) -> str:
        """What the server said."""
        return self._log.read_text()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.port", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        raise AssertionError(f"the application did not start:\n{self.log}")

    def stop(self) -> None:
        """End it, as a user does with Ctrl-C."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> AppServer:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
