"""MariaDB, from the programs that the system has."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

import pymysql  # type: ignore[import-untyped, unused-ignore]

from .ports import LOOPBACK
from .process import ServerProcess, planted_password

if TYPE_CHECKING:
    from pymysql.cursors import Cursor  # type: ignore[import-untyped, unused-ignore]

_FURTHER_FOLDERS = ("/usr/sbin", "/usr/libexec", "/usr/local/sbin", "/usr/local/libexec", "/opt/homebrew/bin")
_SETTINGS = (
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=48M",
    "--innodb-flush-log-at-trx-commit=2",
    "--max-connections=200",
)
_SOCKET_PATH_LIMIT = 80


def available() -> str | None:
    """Why MariaDB cannot run here, or None when it can."""
    for program in ("mariadbd", "mariadb-install-db"):
        if _find(program) is None:
            return f"MariaDB: the program {program} is not installed"
    return None


class MariaDBServer(ServerProcess):
    """A MariaDB server with the defaults that it was built with: no configuration file is read."""

    kind = "mariadb"
    user: ClassVar[str] = "agent"
    database: ClassVar[str] = "agent_stores"

    def __init__(self, *, args: tuple[str, ...] = ()) -> None:
        """Describe a server; `args` are further options of its command line."""
        super().__init__()
        self.password = planted_password(self.kind)
        self._args = args

    @property
    def url(self) -> str:
        """The connection string of the database that is there from the start."""
        return self.url_of(self.database)

    def url_of(self, database: str) -> str:
        """The connection string of a database."""
        return f"mariadb://{self.user}:{self.password}@{LOOPBACK}:{self.port}/{quote(database, safe='')}"

    def connect(
        self, database: str | None = None, *, timeout: float | None = None
    ) -> pymysql.Connection[Cursor]:
        """A new PyMySQL connection with autocommit, for the caller to close; `timeout` is for each reply."""
        return pymysql.connect(
            host=LOOPBACK,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database or self.database,
            connect_timeout=10,
            read_timeout=timeout,
            autocommit=True,
        )

    def create_database(self, name: str) -> str:
        """Make an empty database with the server's defaults and return its connection string."""
        quoted = name.replace("`", "``")
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{quoted}`")
        return self.url_of(name)

    def _prepare(self) -> None:
        # Read at each start. The server answers no client before it has run these lines.
        (self.folder / "init.sql").write_text(
            f"CREATE DATABASE IF NOT EXISTS {self.database};\n"
            f"CREATE USER IF NOT EXISTS {self.user}@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {self.user}@'%' WITH GRANT OPTION;\n"
            f"ALTER USER root@localhost IDENTIFIED BY '{self.password}';\n"
            "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\n"
            "FLUSH PRIVILEGES;\n"
        )
        self._run(
            [
                _require("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_SETTINGS,
                *_as_root(),
            ]
        )

    def _command(self) -> list[str]:
        socket = str(self.folder / "socket")
        if len(socket) > _SOCKET_PATH_LIMIT:
            socket = ""
        return [
            _require("mariadbd"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            f"--socket={socket}",
            f"--pid-file={self.folder / 'server.pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            *_SETTINGS,
            *_as_root(),
            *self._args,
        ]

    def _probe(self) -> None:
        with self.connect(timeout=5) as connection:
            connection.ping(reconnect=False)


def _as_root() -> tuple[str, ...]:
    return ("--user=root",) if os.geteuid() == 0 else ()


def _find(program: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_FURTHER_FOLDERS))
    return shutil.which(program, path=path)


def _require(program: str) -> str:
    found = _find(program)
    if found is None:
        raise FileNotFoundError(available())
    return found
