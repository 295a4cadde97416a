"""Manifests, their signatures, and checks of files against them."""

from auditstream_export.verify.comparison import SHOWN_ROWS, RowDifference, compare
from auditstream_export.verify.manifest import manifest_bytes, manifest_name, read_manifest, signature_name
from auditstream_export.verify.signing import PublicKey, SigningKey, load_public_key, load_signing_key, make_key
from auditstream_export.verify.verification import CheckedFile, Difference, Signature, Verification, verify_export

__all__ = [
    "SHOWN_ROWS",
    "CheckedFile",
    "Difference",
    "PublicKey",
    "RowDifference",
    "Signature",
    "SigningKey",
    "Verification",
    "compare",
    "load_public_key",
    "load_signing_key",
    "make_key",
    "manifest_bytes",
    "manifest_name",
    "read_manifest",
    "signature_name",
    "verify_export",
]
