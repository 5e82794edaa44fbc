"""A TLS server on this machine, with a certificate made for the test."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gevent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gevent.server import StreamServer


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """Address of the server and the file of its certificate authority."""
    certificate = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = gevent.spawn(server.serve_forever, 0.05)
        try:
            yield f"https://127.0.0.1:{server.server_port}/", certificate
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def tls_relay(folder: Path, address: tuple[str, int]) -> Iterator[tuple[int, Path]]:
    """TLS before a server that has none: port of the relay, file of its certificate authority."""
    certificate = _certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def relay(secure: ssl.SSLSocket, _peer: object) -> None:
        with secure, socket.create_connection(address) as plain:
            pipes = [gevent.spawn(_pipe, *ends) for ends in ((secure, plain), (plain, secure))]
            gevent.joinall(pipes, count=1)
            gevent.killall(pipes)

    server = StreamServer(("127.0.0.1", 0), relay, ssl_context=context)
    server.start()
    try:
        yield server.server_port, certificate
    finally:
        server.stop(1)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


class _Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer anything."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tidegate test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "tls.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
