"""Signed values: what this page wrote can be told from what somebody else made up."""

import hashlib

from itsdangerous import URLSafeSerializer, URLSafeTimedSerializer

_SIGNER = {"key_derivation": "hmac", "digest_method": hashlib.sha256}


def signed(secret: str, purpose: str) -> URLSafeSerializer:
    """Writes and reads values for one purpose; what was signed for another is refused."""
    return URLSafeSerializer(secret, salt=purpose, signer_kwargs=_SIGNER)


def signed_for_a_time(secret: str, purpose: str) -> URLSafeTimedSerializer:
    """The same for values that are read with an age that they may have at most."""
    return URLSafeTimedSerializer(secret, salt=purpose, signer_kwargs=_SIGNER)
