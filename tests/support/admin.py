"""The audit log page over a database of a test's own, with viewers and export jobs in memory."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import UUID, uuid4

import uvicorn
from starlette.testclient import TestClient
from typed_settings.types import SecretStr

from auditstream_admin import AdminApp, AdminSettings, create_app
from auditstream_admin.auth.sessions import Session, Sessions
from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_export import ExportJob, ExportJobs, ExportRequest, JobFile, OpenFile, OutputFormat
from auditstream_local.clickhouse_config import PASSWORD
from auditstream_local.endpoints import Endpoints
from auditstream_ops.clickhouse import connect
from auditstream_schemas.errors import ExportDeniedError, ExportError
from auditstream_schemas.event import AuditEvent, Entity
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage.grants import role_named
from tests.support.fix_stack import database_name, prepare_database

URL = "http://audit.test"
KEY = "the secret of the tests: more than 32 characters"

ACME = Viewer(subject="ada", name="Ada", role=Role.ADMIN, scopes=("org-0",))
GLOBEX = Viewer(subject="eve", name="Eve", role=Role.ADMIN, scopes=("org-1",))
AUDITOR = Viewer(subject="ann", name="Ann", role=Role.AUDITOR)


@contextmanager
def admin_database(endpoints: Endpoints) -> Iterator[ClickHouseSettings]:
    """A migrated database without topics, dropped at the end; the settings are those of its administrator."""
    with database_name() as name:
        prepare_database(endpoints, name)
        settings = ClickHouseSettings(clickhouse_url=endpoints.clickhouse_url, clickhouse_database=name)
        try:
            yield settings
        finally:
            client = connect(settings)
            client.command(f"DROP DATABASE {name} SYNC", use_database=False)
            client.close()


def as_page(settings: ClickHouseSettings) -> ClickHouseSettings:
    """The same database, with the ClickHouse user of the page."""
    return replace(settings, clickhouse_user=role_named("page").user, clickhouse_password=SecretStr(PASSWORD))


@dataclass(kw_only=True)
class AdminPage:
    """The page of a test.

    Attributes:
        app: The application.
        settings: Its settings.
        emitted: The audit events that it emitted.
        exports: Its export jobs, unless the test passed others.
    """

    app: AdminApp
    settings: AdminSettings
    emitted: list[AuditEvent]
    exports: "MemoryExports"

    @contextmanager
    def client(self, viewer: Viewer | None = None, *, cookie: str | None = None) -> Iterator[TestClient]:
        """A client that follows no redirects, signed in as a viewer."""
        if viewer is not None:
            cookie = self.cookie(viewer)
        headers = {} if cookie is None else {"cookie": cookie}
        with TestClient(
            self.app.asgi, base_url=self.app.url, follow_redirects=False, headers=headers, raise_server_exceptions=True
        ) as client:
            yield client

    def cookie(self, viewer: Viewer, *, now: int | None = None) -> str:
        """The session cookie of a viewer."""
        sessions = Sessions(KEY, seconds=8 * 3600, idle_seconds=3600, is_secure=self.app.url.startswith("https"))
        began = int(time.time()) if now is None else now
        return sessions.write(Session(viewer=viewer, began=began, used=began)).partition(";")[0]

    def actions(self) -> list[str]:
        """The actions of the emitted events."""
        return [event.action for event in self.emitted]


def admin_page(settings: ClickHouseSettings, *, exports: ExportJobs | None = None, **changes: Any) -> AdminPage:
    """The page over a database."""
    values: dict[str, Any] = {
        **{field.name: getattr(as_page(settings), field.name) for field in fields(ClickHouseSettings)},
        "admin_url": URL,
        "admin_secret": KEY,
        "admin_rate": "100000/minute",
        "admin_anonymous_rate": "100000/minute",
    }
    own = AdminSettings(**{**values, **changes})
    emitted: list[AuditEvent] = []
    memory = MemoryExports()
    return AdminPage(
        app=create_app(own, emitted.append, exports=exports or memory), settings=own, emitted=emitted, exports=memory
    )


@contextmanager
def served(settings: ClickHouseSettings) -> Iterator[AdminPage]:
    """The page on a real port, in a thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        # Before the server thread runs: an early client waits instead of being refused.
        listener.listen()
        made = admin_page(settings, admin_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(made.app.asgi, log_config=None, access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield made
        finally:
            server.should_exit = True
            thread.join()


class MemoryExports(ExportJobs):
    """Export jobs in memory, without Kafka, ClickHouse and workers.

    Attributes:
        stored: The jobs by id, oldest first.
        files: Contents of files by job id.
        quota: Number of jobs after which requests are denied.
    """

    def __init__(self) -> None:
        self.stored: dict[UUID, ExportJob] = {}
        self.files: dict[UUID, bytes] = {}
        self.quota = 1000

    def request(self, export_request: ExportRequest, *, requester: Entity, **options: Any) -> ExportJob:
        if len(self.stored) >= self.quota:
            raise ExportDeniedError("the quota of today is used up")
        job = new_job(
            export_request, requester=requester, label=options["label"], output_format=options["output_format"]
        )
        self.stored[job.id] = job
        return job

    def finish(self, job: ExportJob, content: bytes) -> ExportJob:
        self.files[job.id] = content
        file = JobFile(name=f'export "{job.id}"\r\n.csv', rows=1, bytes=len(content), sha256="0" * 64)
        self.stored[job.id] = finished = replace(job, state="finished", rows=1, total=1, files=(file,))
        return finished

    def jobs(self, scopes: Sequence[str] | None, *, limit: int = 100) -> list[ExportJob]:
        del scopes, limit  # The page must not rely on the scopes.
        return list(self.stored.values())[::-1]

    def job(self, id: UUID) -> ExportJob | None:
        return self.stored.get(id)

    def cancel(self, id: UUID, **options: Any) -> ExportJob:
        assert options["by"].attributes["role"] == "admin"
        if self.stored[id].is_under_way:
            self.stored[id] = replace(self.stored[id], state="cancelled")
        return self.stored[id]

    @contextmanager
    def open(self, id: UUID, **options: Any) -> Iterator[OpenFile]:
        assert options["name"] is None
        if id not in self.files:
            raise ExportError("there is no file")
        content, name = self.files[id], self.stored[id].data[0].name
        yield OpenFile(name=name, size=len(content), media_type="text/csv", pieces=iter([content]))


def new_job(
    export_request: ExportRequest, *, requester: Entity, label: str = "", output_format: OutputFormat
) -> ExportJob:
    """A queued job."""
    now = export_request.end
    return ExportJob(
        id=uuid4(),
        request=export_request,
        output_format=output_format,
        requester=requester,
        label=label,
        requested_at=now,
        queued_at=now,
        changed_at=now,
    )
