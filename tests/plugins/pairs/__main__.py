"""Prints the table of docs/plugins.md, or with ``--write`` puts it there."""

from __future__ import annotations

import asyncio
import sys

from tests.plugins.pairs.table import PAGE, page_with, table

made = asyncio.run(table())
if "--write" in sys.argv[1:]:
    PAGE.write_text(page_with(made), encoding="utf-8")
else:
    sys.stdout.write(made)
