"""Who looks: a person or a token, and what they may see. No query can be made without one."""

from dataclasses import dataclass
from enum import StrEnum

from auditstream_schemas.errors import AdminError


class Role(StrEnum):
    """What a viewer is; nobody else sees anything."""

    ADMIN = "admin"
    """Of organisations: sees and exports the events of their own scopes."""
    AUDITOR = "auditor"
    """Sees the events of all scopes, those without one too; changes nothing and requests nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Somebody who may see events.

    Attributes:
        subject: Who it is, as the sign-in says; ``token:ID`` for an API token. Not empty.
        name: Name for people to read; the subject if none is known.
        role: What they are.
        scopes: Ids of the scopes of an admin, sorted; empty for an auditor, who sees all.

    Raises:
        AdminError: An admin has no scope, or one with an empty id: that would be the events without a scope.
    """

    subject: str
    name: str
    role: Role
    scopes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.subject:
            raise AdminError("a viewer needs a subject")
        if self.role is Role.ADMIN and (not self.scopes or "" in self.scopes):
            raise AdminError(f"{self.subject} is an admin of no scope: give the ids of their organisations")
        scopes = () if self.role is Role.AUDITOR else tuple(sorted(set(self.scopes)))
        object.__setattr__(self, "scopes", scopes)

    @property
    def sees_all(self) -> bool:
        """Whether no scope is hidden."""
        return self.role is Role.AUDITOR

    @property
    def may_export(self) -> bool:
        """Whether they may request exports and cancel them."""
        return self.role is Role.ADMIN

    def may_see(self, scope: str) -> bool:
        """Whether the events of a scope are theirs to see; the empty id means events without one."""
        return self.sees_all or scope in self.scopes
