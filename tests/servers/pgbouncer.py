"""PgBouncer, a proxy that gives each transaction of PostgreSQL another connection."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import psycopg

from .ports import LOOPBACK
from .process import ServerProcess

if TYPE_CHECKING:
    from .postgres import PostgresServer

_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


def available() -> str | None:
    """Why PgBouncer cannot run here, or None when it can."""
    return None if _find() else "PgBouncer: the program pgbouncer is not installed"


class PgBouncer(ServerProcess):
    """A PgBouncer with its defaults, in transaction mode, with three connections to the server."""

    kind = "pgbouncer"

    def __init__(self, server: PostgresServer) -> None:
        """Describe a proxy of a server."""
        super().__init__()
        self._server = server

    @property
    def url(self) -> str:
        """The connection string of the server's database through the proxy."""
        return self._server.url.replace(f":{self._server.port}/", f":{self.port}/")

    def _prepare(self) -> None:
        self.folder.chmod(0o755)
        (self.folder / "users.txt").write_text(f'"{self._server.user}" "{self._server.password}"\n')

    def _command(self) -> list[str]:
        program = _find()
        if program is None:
            raise FileNotFoundError(available())
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={LOOPBACK} port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = {LOOPBACK}\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
            f"auth_file = {self.folder / 'users.txt'}\npool_mode = transaction\ndefault_pool_size = 3\n"
            "max_client_conn = 200\n"
        )
        return [program, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(settings)]

    def _probe(self) -> None:
        with psycopg.connect(self.url, connect_timeout=5, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")


def _find() -> str | None:
    return shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOLDERS)))
