"""The OpenAPI document of the API."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from auditstream_admin.api.models import ProblemModel


def openapi(routes: FastAPI) -> dict[str, Any]:
    """The document, made once.

    Malformed parameters are answered with 400 and a problem, where FastAPI would have 422 and a model of its own.
    """
    if routes.openapi_schema is None:
        found = get_openapi(
            title=routes.title,
            version=routes.version,
            summary=routes.summary,
            routes=routes.routes,
        )
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        components = found.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        problem = ProblemModel.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["ProblemModel"] = problem
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "From `auditstream token create`."}
        }
        found["security"] = [{"token": []}]
        routes.openapi_schema = found
    return routes.openapi_schema
