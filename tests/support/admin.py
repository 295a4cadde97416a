"""The admins' page over a database of a test's own, and somebody to look at it."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any
from uuid import UUID, uuid4

import uvicorn
from starlette.testclient import TestClient
from typed_settings.types import SecretStr

from auditstream_admin import AdminApp, AdminSettings, create_app
from auditstream_admin.auth.sessions import Session, Sessions
from auditstream_admin.auth.viewer import Role, Viewer
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.events.time_range import TimeSpan
from auditstream_admin.exports.service import Asker, ExportFile, ExportFormat, ExportJobView, ExportService
from auditstream_local.clickhouse_config import PASSWORD
from auditstream_local.endpoints import Endpoints
from auditstream_ops.clickhouse import connect
from auditstream_schemas.errors import AdminError, DeniedError
from auditstream_schemas.event import AuditEvent
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_storage.grants import role_named
from tests.support.stack import database_name, prepare_database

URL = "http://audit.test"
KEY = "what signs the cookies of tests: more than 32 characters"

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
class Desk:
    """The page, put together for a test.

    Attributes:
        app: The application.
        noted: Events that it emitted.
        exports: What runs its exports.
    """

    app: AdminApp
    settings: AdminSettings
    noted: list[AuditEvent]
    exports: "MemoryExports"

    @contextmanager
    def client(self, viewer: Viewer | None = None, *, cookie: str | None = None) -> Iterator[TestClient]:
        """A browser without redirects, signed in as a viewer."""
        if viewer is not None:
            cookie = self.cookie(viewer)
        headers = {} if cookie is None else {"cookie": cookie}
        with TestClient(
            self.app.asgi, base_url=self.app.url, follow_redirects=False, headers=headers, raise_server_exceptions=True
        ) as client:
            yield client

    def cookie(self, viewer: Viewer, *, now: int | None = None) -> str:
        """The cookie of somebody who has signed in."""
        sessions = Sessions(KEY, seconds=8 * 3600, idle_seconds=3600, is_secure=self.app.url.startswith("https"))
        return sessions.write(Session.begin(viewer, int(time.time()) if now is None else now)).partition(";")[0]

    def actions(self) -> list[str]:
        """The actions of what it emitted."""
        return [event.action for event in self.noted]


def desk(settings: ClickHouseSettings, *, exports: ExportService | None = None, **changes: Any) -> Desk:
    """The page over a database."""
    values: dict[str, Any] = {
        **{field.name: getattr(as_page(settings), field.name) for field in fields(ClickHouseSettings)},
        "admin_url": URL,
        "admin_secret": KEY,
        "admin_rate": "100000/minute",
        "admin_anonymous_rate": "100000/minute",
    }
    own = AdminSettings(**{**values, **changes})
    noted: list[AuditEvent] = []
    memory = MemoryExports()
    return Desk(app=create_app(own, noted.append, exports=exports or memory), settings=own, noted=noted, exports=memory)


@contextmanager
def served(settings: ClickHouseSettings) -> Iterator[Desk]:
    """The page on a real port, in a thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        # Before the thread does: who comes early waits.
        listener.listen()
        made = desk(settings, admin_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        config = uvicorn.Config(made.app.asgi, log_config=None, access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield made
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class MemoryExports:
    """Runs exports at once, in memory; keeps every promise of the protocol but that of lasting."""

    found: dict[UUID, ExportJobView] = field(default_factory=dict)
    files: dict[UUID, bytes] = field(default_factory=dict)
    quota: int = 1000

    def request(self, wanted: EventFilter, span: TimeSpan, format: ExportFormat, *, by: Asker) -> ExportJobView:
        if len(self.found) >= self.quota:
            raise DeniedError("the quota of today is used up")
        job = ExportJobView(
            id=uuid4(),
            state="queued",
            scopes=by.viewer.scopes if wanted.scope is None else (wanted.scope,),
            filter=wanted.query(),
            span=span,
            format=format,
            requested_by=by.viewer.subject,
            requested_at=span.end,
        )
        self.found[job.id] = job
        return job

    def finish(self, job: ExportJobView, content: bytes) -> ExportJobView:
        self.files[job.id] = content
        done = replace(job, state="finished", rows=1, total=1, size=len(content), sha256="0" * 64)
        self.found[job.id] = done
        return done

    def jobs(self, scopes: Sequence[str] | None) -> Sequence[ExportJobView]:
        del scopes  # The page must not rest on it.
        return list(self.found.values())[::-1]

    def job(self, id: UUID) -> ExportJobView | None:
        return self.found.get(id)

    def cancel(self, id: UUID, *, by: Asker) -> None:
        assert by.viewer.may_export
        if self.found[id].is_under_way:
            self.found[id] = replace(self.found[id], state="cancelled")

    def open(self, id: UUID, name: str | None, *, by: Asker) -> AbstractContextManager[ExportFile]:
        assert by.viewer.sees_all or by.viewer.scopes
        assert name is None
        if id not in self.files:
            raise AdminError("there is no file (any more)")
        return self._file(id)

    @contextmanager
    def _file(self, id: UUID) -> Iterator[ExportFile]:
        content = self.files[id]
        yield ExportFile(
            name=f'export "{id}"\r\n.csv', size=len(content), media_type="text/csv", pieces=iter([content])
        )
