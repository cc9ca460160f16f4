"""mem0's telemetry: off, unless the user turned it on."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

_VARIABLE = "MEM0_TELEMETRY"
_is_ours = False


def turn_telemetry_off() -> None:
    """Keep mem0 from reporting what it is used for; does nothing where the environment sets the variable.

    mem0 reads the variable when it is imported, so it is set here; where mem0 was imported before, its
    switches are turned.
    """
    global _is_ours
    if _VARIABLE in os.environ and not _is_ours:
        return
    _is_ours = True
    os.environ[_VARIABLE] = "False"
    for name in ("mem0.memory.telemetry", "mem0.memory.main"):
        module = sys.modules.get(name)
        if isinstance(getattr(module, _VARIABLE, None), bool):
            setattr(module, _VARIABLE, False)
    reporting = sys.modules.get("mem0.memory.telemetry")
    if reporting is not None:
        _silence(reporting)


def _silence(reporting: ModuleType) -> None:
    """Disable the reporters that were made before."""
    for name in ("client_telemetry", "_oss_telemetry_instance"):
        reporter: Any = getattr(getattr(reporting, name, None), "posthog", None)
        if reporter is not None:
            reporter.disabled = True
