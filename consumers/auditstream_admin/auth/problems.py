"""Errors as answers: problem+json (RFC 9457) for programs; pages make their own."""

import json
from http import HTTPStatus

from fastapi import Request
from starlette.responses import Response

from auditstream_schemas.errors import AdminError, DeniedError, FilterError, StoreUnavailableError

MEDIA_TYPE = "application/problem+json"


def status_of(error: AdminError) -> int:
    """The HTTP status that an error of ours is answered with."""
    if isinstance(error, FilterError):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, DeniedError):
        return HTTPStatus.FORBIDDEN
    if isinstance(error, StoreUnavailableError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def problem_body(status: int, detail: str, **more: object) -> bytes:
    """The JSON of a problem; its members follow RFC 9457."""
    found = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return json.dumps(found, ensure_ascii=False).encode()


def problem(status: int, detail: str, **more: object) -> Response:
    """The answer."""
    return Response(problem_body(status, detail, **more), status, media_type=MEDIA_TYPE)


def is_for_programs(request: Request) -> bool:
    """Whether a request is answered with JSON, also when it fails."""
    return request.url.path.startswith("/api/")
