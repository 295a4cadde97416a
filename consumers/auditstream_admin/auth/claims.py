"""From the claims of a sign-in to a viewer: by settings, and nobody is one by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import AdminError, DeniedError

_MAX_SCOPES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """Which claims say what.

    Attributes:
        role: Name of the claim with the role or roles; dots lead into objects.
        admin: Value that makes an admin.
        auditor: Value that makes an auditor; it wins, where somebody has both.
        scopes: Name of the claim with the scope ids of an admin.
    """

    role: str
    admin: str
    auditor: str
    scopes: str

    @classmethod
    def of(cls, settings: AdminSettings) -> "ClaimRules":
        """As the settings have them."""
        return cls(
            role=settings.admin_role_claim,
            admin=settings.admin_role_admin,
            auditor=settings.admin_role_auditor,
            scopes=settings.admin_scopes_claim,
        )

    def viewer(self, claims: Mapping[str, Any]) -> Viewer:
        """Who somebody with these claims is.

        Raises:
            DeniedError: Nobody who may see anything.
        """
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise DeniedError("the sign-in names nobody: it has no claim sub")
        roles = _texts(_found(claims, self.role))
        name = next(
            (value for key in ("name", "preferred_username", "email") if (value := _text(claims, key))), subject
        )
        if self.auditor in roles:
            return Viewer(subject=subject, name=name, role=Role.AUDITOR)
        if self.admin not in roles:
            raise DeniedError(
                f"{name} is neither an organisation's admin nor an auditor: ask whoever grants these roles"
            )
        scopes = _texts(_found(claims, self.scopes))
        if len(scopes) > _MAX_SCOPES:
            raise DeniedError(f"{name} is an admin of {len(scopes)} organisations: {_MAX_SCOPES} at most")
        try:
            return Viewer(subject=subject, name=name, role=Role.ADMIN, scopes=scopes)
        except AdminError as error:
            raise DeniedError(f"{name} is an admin of no organisation: {error}") from error


def _found(claims: Mapping[str, Any], path: str) -> object:
    """A claim by its whole name (a URL has dots, too), or by its path through objects."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(one for one in value if isinstance(one, str))
    return ()


def _text(claims: Mapping[str, Any], key: str) -> str | None:
    value = claims.get(key)
    return value if isinstance(value, str) and value else None
