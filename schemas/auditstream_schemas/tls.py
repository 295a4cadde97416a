"""TLS of our own clients: the CA file of a setting, and what to say about a connection that TLS refused."""

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
    """Why TLS refused a connection, and the fix; empty if the error has another cause.

    Args:
        error: An error of a client library, whose cause or reason may be one of the module ``ssl``.
        variable: The variable that names the CA file.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = getattr(error, "verify_message", error)
            return (
                f"the certificate does not verify ({reason}): name the certificate of its CA in "
                f"{variable}, or give the server a certificate for this host name"
            )
        if isinstance(error, ssl.SSLError):
            return f"TLS failed ({error.reason or error}): does the server speak https on this port?"
        inner = getattr(error, "reason", None)
        inner = (
            inner
            if isinstance(inner, BaseException)
            else next((one for one in error.args if isinstance(one, BaseException)), None)
        )
        error = inner or error.__cause__ or error.__context__
    return ""
