"""The time of `import agent_stores` above that of Python with msgspec, and the slowest modules.

Each import runs in its own process. The fastest run counts: the others waited for something else.
``python benchmarks/import_time.py`` exits with an error when the import exceeds the limit.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys

LIMIT = 60.0  # milliseconds of CPU time more than msgspec alone, with compiled files in place
CODE = (
    "import msgspec, time; wall, cpu = time.perf_counter(), time.process_time(); import {module}; "
    "print(time.perf_counter() - wall, time.process_time() - cpu)"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def measure(module: str, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of wall-clock time and of CPU time of each import, after msgspec."""
    code = CODE.format(module=module)
    run("-c", code)  # compiles what is not compiled yet
    times = [[float(part) * 1000 for part in run("-c", code).stdout.split()] for _ in range(runs)]
    return [wall for wall, _ in times], [cpu for _, cpu in times]


def slowest(module: str, count: int) -> list[tuple[float, str]]:
    """The slowest modules with their own milliseconds, without their imports."""
    report = run("-X", "importtime", "-c", f"import {module}").stderr
    lines = re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", report, re.MULTILINE)
    return sorted(((int(own) / 1000, name) for own, name in lines), reverse=True)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--module", default="agent_stores")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--limit", type=float, default=LIMIT, help="milliseconds of CPU time")
    arguments = parser.parse_args()
    wall, cpu = measure(arguments.module, arguments.runs)
    for name, times in (("wall-clock", wall), ("CPU", cpu)):
        print(f"{name} time: best {min(times):.0f} ms, median {statistics.median(times):.0f} ms")
    for own, name in slowest(arguments.module, 12):
        print(f"{own:8.1f} ms  {name}")
    if min(cpu) > arguments.limit:
        sys.exit(f"import {arguments.module} takes {min(cpu):.0f} ms; the limit is {arguments.limit:g} ms")


if __name__ == "__main__":
    main()
