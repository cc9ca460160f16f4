"""Draw the cost of a turn against the length of the thread, from the results of a run; log-log.

Needs matplotlib: `run.py` runs it in the environment of `peers/own.txt`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

_TITLES = {
    "redis": "Redis (Valkey 9)",
    "sqlite": "SQLite (WAL)",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
    "azure": "Azure Tables (Azurite)",
    "dynamodb": "DynamoDB (moto)",
}
_OURS = "#d6336c"
_OTHERS = ["#1971c2", "#2f9e44", "#e8590c", "#7048e8", "#0c8599", "#846358", "#c2a000"]


def draw(results: dict[str, Any], target: Path) -> None:
    """One panel for each backend: milliseconds of a turn against messages in the thread."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmark", "font.size": 9})
    backends = results["backends"]
    figure, panels = plt.subplots(1, len(backends), figsize=(4.6 * len(backends), 4.8), squeeze=False)
    for panel, (backend, found) in zip(panels[0], backends.items(), strict=True):
        others = iter(_OTHERS * 2)
        for candidate in found["candidates"]:
            if candidate["group"]:
                continue
            points = [
                (int(n), cell["turn"] / 1e6) for n, cell in candidate["medians"].items() if "turn" in cell
            ]
            if not points:
                continue
            label = candidate["label"]
            ours, raw = label.startswith("agent-stores"), label.startswith("raw")
            panel.loglog(
                *zip(*points, strict=True),
                label=label,
                color=_OURS if ours else "#868e96" if raw else next(others),
                linestyle="--" if raw or (ours and label != "agent-stores") else "-",
                linewidth=2.2 if ours else 1.3,
                marker="o",
                markersize=3,
                zorder=3 if ours else 2,
            )
        panel.set_title(_TITLES[backend])
        panel.set_xlabel("messages in the thread")
        panel.grid(visible=True, which="major", color="#e9ecef")
        if not panel.lines:
            continue
        panel.legend(fontsize=6.5, frameon=False, loc="upper left")
        low, high = panel.get_ylim()
        panel.set_ylim(low / 1.3, high * 12)
    panels[0][0].set_ylabel("add a turn and read its context, in ms")
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
