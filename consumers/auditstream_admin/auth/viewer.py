"""The viewer: a person or an API token, with the scopes that it may see. Every query needs one.

The claims of a sign-in make a viewer. The settings name the claims; a sign-in without a role is denied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import AdminError, DeniedError

_MAX_SCOPES = 200


class Role(StrEnum):
    """The role of a viewer. Only viewers with a role see events."""

    ADMIN = "admin"
    """Admin of organisations: sees and exports the events of these scopes."""
    AUDITOR = "auditor"
    """Sees the events of all scopes and those without a scope; changes nothing and requests no exports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """A person or an API token that may see events.

    Attributes:
        subject: Identity from the sign-in, not empty; ``token:ID`` for an API token.
        name: Name to display; the subject if no name is known.
        role: The role.
        scopes: Scope ids of an admin, sorted; empty for an auditor, who sees all scopes.

    Raises:
        AdminError: An admin has no scope, or an empty scope id, which would mean the events without a scope.
    """

    subject: str
    name: str
    role: Role
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.subject:
            raise AdminError("a viewer needs a subject")
        if self.role is Role.ADMIN and (not self.scopes or "" in self.scopes):
            raise AdminError(f"{self.subject} is an admin without a scope: give the ids of their organisations")
        scopes = () if self.role is Role.AUDITOR else tuple(sorted(set(self.scopes)))
        object.__setattr__(self, "scopes", scopes)

    @property
    def sees_all(self) -> bool:
        """Whether the viewer sees all scopes."""
        return self.role is Role.AUDITOR

    @property
    def may_export(self) -> bool:
        """Whether the viewer may request and cancel exports."""
        return self.role is Role.ADMIN

    def may_see(self, scope: str) -> bool:
        """Whether the viewer may see the events of a scope; the empty id means events without a scope."""
        return self.sees_all or scope in self.scopes


def viewer_of_claims(claims: Mapping[str, Any], settings: AdminSettings) -> Viewer:
    """The viewer with these claims; an auditor if the claims contain both roles.

    Raises:
        DeniedError: The claims give no role, or make an admin without a scope.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise DeniedError("the sign-in has no subject: the claim sub is missing")
    names = (claims.get(key) for key in ("name", "preferred_username", "email"))
    name = next((name for name in names if isinstance(name, str) and name), subject)
    roles = _strings(_claim(claims, settings.admin_role_claim))
    if settings.admin_role_auditor in roles:
        return Viewer(subject=subject, name=name, role=Role.AUDITOR)
    if settings.admin_role_admin not in roles:
        raise DeniedError(f"{name} has neither the role of an admin nor that of an auditor: ask for one of them")
    scopes = _strings(_claim(claims, settings.admin_scopes_claim))
    if len(scopes) > _MAX_SCOPES:
        raise DeniedError(f"{name} is an admin of {len(scopes)} organisations; the limit is {_MAX_SCOPES}")
    try:
        return Viewer(subject=subject, name=name, role=Role.ADMIN, scopes=scopes)
    except AdminError as error:
        raise DeniedError(f"{name} is an admin without an organisation: {error}") from error


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """A claim by its full name, since URLs contain dots too, or by its path through nested objects."""
    if path in claims:
        return claims[path]
    value: object = claims
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _strings(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
