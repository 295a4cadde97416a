"""The audit log page and its API: admins see the events of their organisations, auditors those of all."""

from auditstream_admin.app import AdminApp, create_app
from auditstream_admin.settings import AdminSettings

__all__ = [
    "AdminApp",
    "AdminSettings",
    "create_app",
]
