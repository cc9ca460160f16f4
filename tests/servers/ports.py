"""Free ports on loopback, held so that no other process gets them."""

from __future__ import annotations

import socket
import sys

LOOPBACK = "127.0.0.1"

_ATTEMPTS = 200


class PortLease:
    """A free port on loopback, kept for a server also while that server is down.

    On Linux the lease holds a socket that is bound and does not listen. A server may still bind the port
    (both sides set ``SO_REUSEADDR``), the system gives it to no process that asks for any free port, and a
    attempt to connect while the server is down is refused. Elsewhere the port was only free a moment ago.
    """

    def __init__(self, *offsets: int) -> None:
        """Find a port such that it, and it plus each of the offsets, is free."""
        for _ in range(_ATTEMPTS):
            self._held: list[socket.socket] = []
            try:
                self.port = self._bind(0)
                for offset in offsets:
                    self._bind(self.port + offset)
            except (OSError, OverflowError):
                self.release()
                continue
            if sys.platform != "linux":
                self.release()
            return
        message = f"No free port on loopback after {_ATTEMPTS} attempts."
        raise OSError(message)

    def release(self) -> None:
        """Let others have the port. Calling this twice is fine."""
        for held in self._held:
            held.close()
        self._held.clear()

    def _bind(self, port: int) -> int:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._held.append(holder)
        if sys.platform == "linux":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, port))
        return int(holder.getsockname()[1])
