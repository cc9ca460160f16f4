"""TLS in front of a server that does not speak it, with certificates made for the test."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

_CHUNK = 65536
_VALID = timedelta(days=1)
_JOIN_SECONDS = 10.0


class Authority:
    """A certificate authority, and the folder that it writes its certificates to.

    Attributes:
        path: its own certificate, in PEM, which clients and servers trust.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, hosts: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Make a certificate.

        Args:
            name: its common name, and the name of its files.
            hosts: the names and addresses of a server.

        Returns:
            The files of the certificate and of its key, in PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key()
        ).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _VALID)
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )


class TlsProxy:
    """Speaks TLS with clients and plain TCP with a server, on an event loop on a thread of its own.

    Args:
        target_port: the server's port on loopback.
        certificate: the files of the certificate and of its key.
        client_authority: the authority of clients' certificates, which clients must have then.

    Attributes:
        port: the port on loopback that clients connect to.
        handshakes: connections on which TLS was agreed on.
    """

    def __init__(
        self, target_port: int, certificate: tuple[Path, Path], *, client_authority: Authority | None = None
    ) -> None:
        self._target_port = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        if client_authority is not None:
            self._context.load_verify_locations(client_authority.path)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="tls-proxy", daemon=True
        )
        self.port = 0
        self.handshakes = 0

    def url(self, server_url: str, *, host: str = LOOPBACK, port: int | None = None) -> str:
        """A server's connection string, changed so that it leads here, by one of this host's names."""
        parts = urlsplit(server_url)
        login, at, _ = parts.netloc.rpartition("@")
        netloc = f"{login}{at}{host}:{self.port if port is None else port}"
        return urlunsplit(parts._replace(scheme="rediss", netloc=netloc))

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        if not self._ready.wait(_JOIN_SECONDS):
            raise RuntimeError("The TLS proxy did not start.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cut everything and stop."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(_JOIN_SECONDS)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda *_: None)  # of handshakes that clients break off
        links: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.handshakes += 1
            task = asyncio.create_task(self._serve(reader, writer))
            links.add(task)
            task.add_done_callback(links.discard)

        server = await asyncio.start_server(accept, LOOPBACK, 0, ssl=self._context)
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in list(links):
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            source, sink = await asyncio.open_connection(LOOPBACK, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.create_task(_pass_on(*way)) for way in ((reader, sink), (source, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, sink):
                end.transport.abort()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
