"""What is done with exports, by the page and by the API alike."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import parse_qsl, quote
from uuid import UUID

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from auditstream_admin.auth.access import access_of
from auditstream_admin.auth.viewer import Viewer
from auditstream_admin.context import AppContext
from auditstream_admin.events.event_filter import EventFilter
from auditstream_admin.exports.service import Asker, ExportFormat, ExportJobView, ViewedExports
from auditstream_schemas.errors import AdminError


def exports_of(request: Request, parts: AppContext, viewer: Viewer) -> ViewedExports:
    """The exports that a viewer may see.

    Raises:
        HTTPException: 501: nobody runs exports here.
    """
    if parts.exports is None:
        raise HTTPException(501, "exports are not set up here")
    return ViewedExports(parts.exports, Asker(viewer=viewer, origin=access_of(request).origin))


def found_job(exports: ViewedExports, id: UUID) -> ExportJobView:
    """One job.

    Raises:
        HTTPException: 404: there is none, or it is not for this viewer to see; which is not said.
    """
    job = exports.job(id)
    if job is None:
        raise HTTPException(404, "there is no such export, or it is not for you to see")
    return job


def request_export(
    request: Request, parts: AppContext, viewer: Viewer, query: str, format: ExportFormat
) -> ExportJobView:
    """Ask for an export of what a query of the page's URL shows.

    Raises:
        FilterError: The query makes no sense.
        DeniedError: The viewer may not, or the quota is used up.
    """
    wanted = EventFilter.read(parse_qsl(query, keep_blank_values=True))
    return exports_of(request, parts, viewer).request(wanted, wanted.time.span(parts.clock()), format)


def cancel_export(request: Request, parts: AppContext, viewer: Viewer, id: UUID) -> ExportJobView:
    """Stop an export.

    Raises:
        DeniedError: The viewer may not.
    """
    exports = exports_of(request, parts, viewer)
    exports.cancel(found_job(exports, id))
    return found_job(exports, id)


def download(request: Request, parts: AppContext, viewer: Viewer, id: UUID, name: str | None) -> StreamingResponse:
    """A file of a finished export: the one with events, or its manifest or signature by name.

    Raises:
        AdminError: It is not there.
    """
    exports = exports_of(request, parts, viewer)
    job = found_job(exports, id)
    if job.state != "finished":
        raise AdminError(f"the export is {job.state}: there is no file")
    with ExitStack() as opened:
        file = opened.enter_context(exports.open(job, name))
        kept = opened.pop_all()

    def pieces() -> Iterator[bytes]:
        with kept:
            yield from file.pieces

    return StreamingResponse(
        pieces(),
        media_type=file.media_type,
        headers={"content-length": str(file.size), "content-disposition": _attachment(file.name)},
    )


def _attachment(name: str) -> str:
    """The header that names a file (RFC 6266); whatever is in the name, it stays one header."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
