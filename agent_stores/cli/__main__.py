"""`python -m agent_stores.cli` is `agent-stores`."""

import sys

from agent_stores.cli import main

sys.exit(main())
