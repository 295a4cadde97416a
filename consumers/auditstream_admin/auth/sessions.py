"""Sessions: a signed cookie that says who somebody is, and until when. The server keeps nothing.

A session cannot be taken back before it ends, only forgotten by its browser; hence it ends soon.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from itsdangerous import BadData

from auditstream_admin.auth.signing import signed, signed_for_a_time
from auditstream_admin.auth.viewer import Role, Viewer

_RENEW_SHARE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who signed in.

    Attributes:
        viewer: Who.
        began: When they signed in, seconds since the epoch.
        used: When the session was last written, seconds since the epoch.
    """

    viewer: Viewer
    began: int
    used: int

    @classmethod
    def begin(cls, viewer: Viewer, now: int) -> Self:
        """A new session, at a moment in seconds since the epoch."""
        return cls(viewer=viewer, began=now, used=now)


class Forms:
    """Tells forms of this page from those of others: each carries a value that only this page can have written."""

    def __init__(self, secret: str, *, seconds: int) -> None:
        self._serializer = signed_for_a_time(secret, "form")
        self._seconds = seconds

    def token(self, holder: str) -> str:
        """What a form of somebody's page carries."""
        return str(self._serializer.dumps(holder))

    def is_ours(self, token: str, holder: str) -> bool:
        """Whether a form carries what was written for them, and not too long ago."""
        try:
            return bool(self._serializer.loads(token, max_age=self._seconds) == holder)
        except BadData:
            return False


class Sessions:
    """Writes and reads session cookies, and the state of a sign-in under way."""

    def __init__(self, secret: str, *, seconds: int, idle_seconds: int, is_secure: bool) -> None:
        """Nothing is kept.

        Args:
            secret: Signs the cookies.
            seconds: A session ends so long after the sign-in.
            idle_seconds: It ends when it was not used for so long.
            is_secure: The page is reached over https: cookies are sent nowhere else.
        """
        self._serializer = signed(secret, "session")
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._is_secure = is_secure
        # Of this very host, set over https, for every path: nobody else's page can set one.
        self.name = "__Host-auditstream" if is_secure else "auditstream"

    def write(self, session: Session) -> str:
        """The header ``set-cookie`` of a session."""
        viewer = session.viewer
        text = self._serializer.dumps(
            [viewer.subject, viewer.name, viewer.role, viewer.scopes, session.began, session.used]
        )
        return cookie(self.name, str(text), seconds=self._seconds, is_secure=self._is_secure)

    def end(self) -> str:
        """The header ``set-cookie`` that makes a browser forget its session."""
        return cookie(self.name, "", seconds=0, is_secure=self._is_secure)

    def read(self, text: str | None, now: int) -> Session | None:
        """The session of a cookie; None if there is none, it is not ours, or it has ended."""
        if not text:
            return None
        try:
            found: list[Any] = self._serializer.loads(text)
        except BadData:
            return None
        subject, name, role, scopes, began, used = found
        if now >= began + self._seconds or now >= used + self._idle_seconds:
            return None
        viewer = Viewer(subject=subject, name=name, role=Role(role), scopes=tuple(scopes))
        return Session(viewer=viewer, began=began, used=used)

    def renewed(self, session: Session, now: int) -> Session | None:
        """The session as used now, if it is worth writing anew."""
        if now < session.used + self._idle_seconds // _RENEW_SHARE:
            return None
        return replace(session, used=now)


def cookie(name: str, value: str, *, seconds: int, is_secure: bool) -> str:
    """A cookie that no script reads and no other site's form sends."""
    parts = [f"{name}={value}", "Path=/", f"Max-Age={seconds}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if is_secure else parts)
