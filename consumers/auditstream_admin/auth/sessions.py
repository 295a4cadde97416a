"""Sessions and other signed values. A session is a signed cookie; the server stores nothing.

A session cannot be revoked before it ends; only its browser can delete it. Sessions are short for this reason.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer

from auditstream_admin.auth.viewer import Role, Viewer

_RENEWALS = 10
"""A session in use is rewritten after this fraction of the idle time."""


def signer(secret: str, purpose: str) -> URLSafeTimedSerializer:
    """Writes and reads signed values for one purpose; a value that was signed for another purpose is rejected."""
    return URLSafeTimedSerializer(
        secret, salt=purpose, signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in viewer, the time of the sign-in, and the time at which the cookie was last written: Unix seconds."""

    viewer: Viewer
    began: int
    used: int


class Forms:
    """Protects forms against cross-site request forgery: each form carries a token that only this page can write."""

    def __init__(self, secret: str, *, seconds: int) -> None:
        self._signer = signer(secret, "form")
        self._seconds = seconds

    def token(self, holder: str) -> str:
        """The token for the forms of one holder, which is a viewer and a session."""
        return str(self._signer.dumps(holder))

    def is_valid(self, token: str, holder: str) -> bool:
        """Whether a token was written for this holder and has not expired."""
        try:
            return bool(self._signer.loads(token, max_age=self._seconds) == holder)
        except BadData:
            return False


class Sessions:
    """Writes and reads session cookies.

    Attributes:
        is_secure: Whether the page is served over https, so that cookies are sent over https only.
        name: Name of the cookie.
    """

    def __init__(self, secret: str, *, seconds: int, idle_seconds: int, is_secure: bool) -> None:
        """A session ends ``seconds`` after the sign-in, or ``idle_seconds`` after its last use."""
        self._signer = signer(secret, "session")
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self.is_secure = is_secure
        # With the prefix __Host-, no other host, path or plain http connection can set this cookie.
        self.name = "__Host-auditstream" if is_secure else "auditstream"

    def write(self, session: Session) -> str:
        """The header ``set-cookie`` of a session."""
        viewer = session.viewer
        values = [viewer.subject, viewer.name, viewer.role, viewer.scopes, session.began, session.used]
        return cookie(self.name, str(self._signer.dumps(values)), seconds=self._seconds, is_secure=self.is_secure)

    def end(self) -> str:
        """The header ``set-cookie`` that deletes the cookie in the browser."""
        return cookie(self.name, "", seconds=0, is_secure=self.is_secure)

    def read(self, text: str | None, now: int) -> Session | None:
        """The session in a cookie; None if there is no cookie, its signature is wrong, or the session has ended."""
        try:
            values: list[Any] = self._signer.loads(text or "")
        except BadData:
            return None
        subject, name, role, scopes, began, used = values
        if now >= began + self._seconds or now >= used + self._idle_seconds:
            return None
        viewer = Viewer(subject=subject, name=name, role=Role(role), scopes=tuple(scopes))
        return Session(viewer=viewer, began=began, used=used)

    def renewed(self, session: Session, now: int) -> Session | None:
        """The session, used now; None if its cookie is recent enough."""
        return replace(session, used=now) if now >= session.used + self._idle_seconds // _RENEWALS else None


def cookie(name: str, value: str, *, seconds: int, is_secure: bool) -> str:
    """The header ``set-cookie`` of a cookie that scripts cannot read and forms of other sites do not send."""
    attributes = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax"
    return f"{attributes}; Secure" if is_secure else attributes
