"""The admins' page and its API: an audit log to look at, within one's own organisations."""

from auditstream_admin.app import AdminApp, create_app
from auditstream_admin.exports.job_exports import JobExports
from auditstream_admin.settings import AdminSettings

__all__ = [
    "AdminApp",
    "AdminSettings",
    "JobExports",
    "create_app",
]
