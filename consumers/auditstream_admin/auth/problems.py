"""Errors as problem+json (RFC 9457), for API clients. Browsers get error pages instead."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from auditstream_schemas.errors import AdminError, DeniedError, FilterError, StoreUnavailableError

_STATUSES: dict[type[AdminError], int] = {
    FilterError: HTTPStatus.BAD_REQUEST,
    DeniedError: HTTPStatus.FORBIDDEN,
    StoreUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(error: AdminError) -> int:
    """The HTTP status of an error; 409 for those without a more specific one."""
    return _STATUSES.get(type(error), HTTPStatus.CONFLICT)


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """A response with a problem document; extra members follow the standard ones."""
    document = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    body = json.dumps(document, ensure_ascii=False).encode()
    return Response(body, status, headers=headers, media_type="application/problem+json")
