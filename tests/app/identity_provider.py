"""An OpenID provider on loopback that signs everybody in without asking, as the person whom a test names."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


class IdentityProvider:
    """The authorization code flow of OpenID Connect Core 1.0, as far as a client needs it.

    Attributes:
        person: the claims of whoever signs in next: ``sub`` and ``name``.
    """

    def __init__(self) -> None:
        self.person: dict[str, str] = {}
        self._key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
        self._codes: dict[str, dict[str, Any]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The issuer."""
        return f"http://localhost:{self._server.server_address[1]}"

    def write_secrets(self, folder: Path, app_url: str) -> None:
        """Write what an application in this home folder signs in with."""
        file = folder / ".streamlit" / "secrets.toml"
        file.parent.mkdir(parents=True)
        values = {
            "redirect_uri": f"{app_url}/oauth2callback",
            "cookie_secret": secrets.token_hex(16),
            "client_id": "chat",
            "client_secret": "secret",
            "server_metadata_url": f"{self.url}/.well-known/openid-configuration",
        }
        file.write_text(
            "[auth]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        )

    def __enter__(self) -> IdentityProvider:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes next."""
        code = secrets.token_hex(8)
        self._codes[code] = {**self.person, "nonce": query.get("nonce"), "aud": query["client_id"]}
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        now = int(time.time())
        claims = {**self._codes.pop(form["code"]), "iss": self.url, "iat": now, "exp": now + 600}
        signed = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)
        return {
            "access_token": secrets.token_hex(8),
            "token_type": "Bearer",
            "expires_in": 600,
            "id_token": signed,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                split = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(split.query).items()}
                if split.path == "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider._authorize(query))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif split.path == "/jwks":
                    self._answer({"keys": [provider._key.as_dict(private=False)]})
                else:
                    self._answer(provider._metadata())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(provider._token({name: values[0] for name, values in parse_qs(body).items()}))

            def _answer(self, document: dict[str, Any]) -> None:
                data = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler
