"""A TLS server in front of a plain one, with a certificate of its own CA. It records bytes that are not TLS."""

import datetime
import ipaddress
import select
import socket
import ssl
import threading
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_PIECE = 65_536
_HANDSHAKE = b"\x16"


def write_certificates(directory: Path) -> Path:
    """Make a directory with ``ca.pem``, and ``server.pem`` for 127.0.0.1 with its key; returns the first."""
    ca_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _certificate("test CA", ca_key, issuer="test CA", issuer_key=ca_key, is_ca=True)
    server = _certificate("127.0.0.1", server_key, issuer="test CA", issuer_key=ca_key, is_ca=False)
    directory.mkdir()
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM) + key)
    return ca_file


class TlsRelay:
    """Relays TLS connections to a plain server; a context manager.

    Attributes:
        url: ``https://127.0.0.1:port``, on a port that no client takes for one of TLS.
        ca_file: Certificate of the CA that signed the relay's.
        plain_text: First bytes of each connection that did not begin with a TLS handshake.
        relayed: Number of connections that were relayed.
    """

    def __init__(self, target_url: str, directory: Path) -> None:
        self.ca_file = write_certificates(directory)
        self.plain_text: list[bytes] = []
        self.relayed = 0
        target = urlsplit(target_url)
        self._target = (target.hostname or "", target.port or 0)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(directory / "server.pem")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError):
            first = client.recv(1, socket.MSG_PEEK)
            if first and first != _HANDSHAKE:
                self.plain_text.append(client.recv(_PIECE))
                return
            with (
                self._context.wrap_socket(client, server_side=True) as tls,
                socket.create_connection(self._target) as server,
            ):
                self.relayed += 1
                _relay(tls, server)


def _relay(tls: ssl.SSLSocket, server: socket.socket) -> None:
    while True:
        # Bytes that TLS has decrypted already do not make the socket readable.
        readable = [tls] if tls.pending() else select.select([tls, server], [], [])[0]
        for source in readable:
            piece = source.recv(_PIECE)
            if not piece:
                return
            (server if source is tls else tls).sendall(piece)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, *, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, is_ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if is_ca:
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    else:
        address = x509.IPAddress(ipaddress.ip_address(name))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
