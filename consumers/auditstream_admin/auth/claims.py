"""Maps the claims of a sign-in to a viewer. The settings name the claims; a sign-in without a role is denied."""

from collections.abc import Mapping
from typing import Any

from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.settings import AdminSettings
from auditstream_schemas.errors import AdminError, DeniedError

SIGNATURE_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Algorithms with public keys. HMAC is not among them: it would turn the issuer's public key into a shared secret."""

_MAX_SCOPES = 200


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
