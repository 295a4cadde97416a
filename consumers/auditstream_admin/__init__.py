"""The audit log page and its API: admins see the events of their organisations, auditors those of all."""

from auditstream_admin.app import AdminApp, create_app
from auditstream_admin.auth.tokens import ApiToken, TokenStore
from auditstream_admin.auth.viewer import Role
from auditstream_admin.settings import AdminSettings

__all__ = ["AdminApp", "AdminSettings", "ApiToken", "Role", "TokenStore", "create_app"]
