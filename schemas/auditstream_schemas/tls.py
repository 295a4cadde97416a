"""The CA file of a client's settings, and the message for a connection that TLS refused."""

import ssl
from pathlib import Path

from auditstream_schemas.errors import SettingsError


def checked_ca_file(path: Path | None, variable: str) -> str | None:
    """The path of a CA file that can be read; None if none is set.

    Raises:
        SettingsError: The file is missing, or has no certificate; names the variable.
    """
    if path is None:
        return None
    try:
        ssl.create_default_context(cafile=str(path))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"cannot use {variable} {path}: {error.strerror if isinstance(error, OSError) else error}; "
            "name a readable PEM file with the certificate of the CA"
        ) from error
    return str(path)


def tls_fault(error: BaseException | None, variable: str) -> str:
    """The reason for which TLS refused a connection, and the fix; empty if the error has another cause.

    An error of a client library has the error of the module ``ssl`` as its reason, argument or cause.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            fix = f"name the certificate of its CA in {variable}, or give the server a certificate for this host name"
            return f"the certificate does not verify ({getattr(error, 'verify_message', error)}): {fix}"
        if isinstance(error, ssl.SSLError):
            return f"TLS failed ({error.reason or error}): does the server speak https on this port?"
        inner = (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__)
        error = next((cause for cause in inner if isinstance(cause, BaseException)), None)
    return ""
