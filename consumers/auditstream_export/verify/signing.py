"""Ed25519 signatures of manifests.

The signature covers the bytes of the manifest's file, and is stored as 64 bytes in a separate file. So
``openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in MANIFEST -sigfile MANIFEST.sig`` checks it.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from auditstream_schemas.errors import ExportError, SettingsError


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures."""

    key: Ed25519PublicKey

    @property
    def pem(self) -> str:
        """The key as PEM, as openssl reads it."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def key_id(self) -> str:
        """SHA-256 of the key's DER, hexadecimal: ``openssl pkey -pubin -in PUBLIC.pem -outform DER | sha256sum``."""
        der = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def is_signature(self, signature: bytes, data: bytes) -> bool:
        """Whether this is the key's signature of these bytes."""
        with suppress(InvalidSignature):
            self.key.verify(signature, data)
            return True
        return False

    def to_dict(self) -> dict[str, str]:
        """The key and its id, for the manifest. A verifier trusts the key only if it knows the id already."""
        return {"algorithm": "ed25519", "key_id": self.key_id, "public_key": self.pem}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that makes signatures."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        """The public key that checks its signatures."""
        return PublicKey(self.key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Sign these bytes; the signature has 64 bytes."""
        return self.key.sign(data)


def load_signing_key(path: Path) -> SigningKey:
    """Read a private key. Raises SettingsError if the file cannot be read, or is not an Ed25519 private key."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"cannot read AUDITSTREAM_EXPORT_KEY_FILE {path}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"AUDITSTREAM_EXPORT_KEY_FILE {path} is not an Ed25519 private key in PEM: "
            "make one with `auditstream export keygen`"
        )
    return SigningKey(key)


def read_bytes(path: Path) -> bytes:
    """Read a file, such as a key or a manifest. Raises ExportError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}") from error


def load_public_key(path: Path) -> PublicKey:
    """Read a public key. Raises ExportError if the file cannot be read, or is not an Ed25519 public key."""
    return parse_public_key(read_bytes(path), source=str(path))


def parse_public_key(pem: bytes, *, source: str) -> PublicKey:
    """Read a public key from its PEM. Raises ExportError if the text is not an Ed25519 public key."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ExportError(f"{source} is not an Ed25519 public key in PEM")
    return PublicKey(key)


def make_key(path: Path) -> PublicKey:
    """Make a key pair: the private key at ``path``, readable by its owner only, the public key at ``path.pub``.

    Raises:
        ExportError: One of the files exists already, or cannot be written.
    """
    key = SigningKey(Ed25519PrivateKey.generate())
    private = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_path = path.with_name(f"{path.name}.pub")
    if existing := [file for file in (path, public_path) if file.exists()]:
        raise ExportError(f"{existing[0]} exists: a key is never overwritten, choose another name")
    try:
        for file, mode, text in ((path, 0o600, private), (public_path, 0o644, key.public.pem.encode())):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(text)
    except OSError as error:
        raise ExportError(f"cannot write {error.filename}: {error.strerror}") from error
    return key.public
