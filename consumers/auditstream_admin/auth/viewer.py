"""The viewer: a person or an API token, with the scopes that it may see. Every query needs one."""

from dataclasses import dataclass
from enum import StrEnum

from auditstream_schemas.errors import AdminError


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
