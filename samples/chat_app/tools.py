"""What the model can call. Replace them by your own: any function with types and a docstring will do."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo


def current_time(timezone: Annotated[str, "an IANA name, such as Europe/Oslo"] = "UTC") -> str:
    """The time of day and the date in a time zone."""
    return f"{datetime.now(ZoneInfo(timezone)):%H:%M on %A, %d %B %Y} ({timezone})"


def roll_dice(sides: Annotated[int, "sides of each die"] = 6, count: Annotated[int, "how many"] = 1) -> str:
    """Roll dice."""
    if not (2 <= sides <= 1000 and 1 <= count <= 100):
        raise ValueError("dice must be 1 to 100, with 2 to 1000 sides")
    return ", ".join(str(random.randint(1, sides)) for _ in range(count))


TOOLS = (current_time, roll_dice)
