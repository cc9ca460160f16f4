"""The guard against blocking calls, which all tests run under (tests/conftest.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import blockbuster
import pytest

import agent_stores


@pytest.mark.anyio
async def test_a_blocking_call_of_the_library_raises() -> None:
    scope: dict[str, Any] = {}
    source = "import time\n\n\ndef block():\n    time.sleep(0.001)\n"
    file = Path(agent_stores.__file__).parent / "pretended.py"
    exec(compile(source, str(file), "exec"), scope)
    with pytest.raises(blockbuster.BlockingError, match=r"time\.sleep"):
        scope["block"]()
