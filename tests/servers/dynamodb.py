"""moto's server, as an emulator of Amazon DynamoDB: it forgets all when it ends."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from .ports import LOOPBACK
from .process import ServerError, ServerProcess


class DynamoDBServer(ServerProcess):
    """An emulator of DynamoDB; it accepts any credentials."""

    kind = "dynamodb"
    region = "eu-central-1"

    @property
    def endpoint(self) -> str:
        """The URL that clients connect to."""
        return self.endpoint_at(self.port)

    def endpoint_at(self, port: int) -> str:
        """The URL, through another port."""
        return f"http://{LOOPBACK}:{port}"

    def _prepare(self) -> None:
        """Nothing to prepare."""

    def _command(self) -> list[str]:
        script = Path(__file__).with_name("dynamodb_step.py")
        return [sys.executable, str(script), "-H", LOOPBACK, "-p", str(self.port)]

    def _probe(self) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/moto-api/data.json")
            if connection.getresponse().status != 200:
                raise ServerError("dynamodb: no answer yet")
        finally:
            connection.close()

    def _port_was_taken(self) -> bool:
        return "already in use" in self._log().lower() or "is in use" in self._log().lower()
