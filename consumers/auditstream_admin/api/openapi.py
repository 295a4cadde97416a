"""The OpenAPI document of the API."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from auditstream_admin.api.models import ProblemModel


def openapi(routes: FastAPI) -> dict[str, Any]:
    """The document; generated once.

    FastAPI documents status 422 for malformed parameters. The API responds with 400 and a problem document instead.
    """
    if routes.openapi_schema is None:
        document = get_openapi(title=routes.title, version=routes.version, summary=routes.summary, routes=routes.routes)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = ProblemModel.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}), ProblemModel=problem)
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "Created by `auditstream token create`."}
        }
        document["security"] = [{"token": []}]
        routes.openapi_schema = document
    return routes.openapi_schema
