"""A summary of the commands without other packages: the help if the extra ``cli`` is not installed."""

from __future__ import annotations

COMMANDS = {
    "threads": "List threads: messages, bytes, tokens, last time and expiry; with --json also metadata.",
    "tenants": "List the tenants that have threads.",
    "fork": "Copy a thread, or its beginning, to a new one, and print the new one's id.",
    "show": "Show a thread's messages as they are stored; long texts are shortened.",
    "export": "Export threads as JSON Lines, for `import`.",
    "import": "Import threads from JSON Lines. Safe to run again: no message is added twice.",
    "migrate": "Copy conversations that another library stored; safe to stop and to run again.",
    "rekey": "Encrypt with the current key what is stored in the clear or with another key.",
    "erase": "Erase threads and the forks made from them, look again, write a receipt. Safe to repeat.",
    "delete": "Delete threads with all their messages.",
    "purge": "Remove expired threads, of every tenant.",
    "demo": "Hold a conversation, end the process, and continue it in another one.",
}


def summary() -> str:
    """The usage and the commands, as plain text."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: agent-stores COMMAND [OPTIONS]",
            "",
            "List, export, migrate and delete the stored conversations of agents.",
            "",
            "Commands:",
            *lines,
            "",
            "The commands need the extra `cli`: pip install 'agent-stores[cli,database]', or",
            "pip install '.[cli,database]' in a checkout. Each then has its own --help.",
        ]
    )
