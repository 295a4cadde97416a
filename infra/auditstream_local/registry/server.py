"""A stand-in for a schema registry, for development and tests: ``python -m auditstream_local.registry.server``.

It implements the part of the Confluent REST API that Kafka clients, kcat and ClickHouse use, for Avro schemas without
references. It listens on 127.0.0.1 only and has no passwords.
"""

import json
from pathlib import Path
from typing import Any

import click
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from auditstream_local.lifeline import die_with_parent
from auditstream_local.registry.schema_store import RefusalError, SchemaStore, Version
from auditstream_local.server import HOST

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"


class _Answer(JSONResponse):
    media_type = _MEDIA_TYPE


class Registry:
    """The HTTP side: each method answers one route."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store

    def app(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/", self._root),
                Route("/subjects", self._subjects),
                Route("/subjects/{subject}", self._look_up, methods=["POST"]),
                Route("/subjects/{subject}", self._delete, methods=["DELETE"]),
                Route("/subjects/{subject}/versions", self._versions, methods=["GET"]),
                Route("/subjects/{subject}/versions", self._register, methods=["POST"]),
                Route("/subjects/{subject}/versions/{version}", self._version),
                Route("/subjects/{subject}/versions/{version}/schema", self._version_schema),
                Route("/schemas/types", self._types),
                Route("/schemas/ids/{schema_id:int}", self._schema),
                Route("/schemas/ids/{schema_id:int}/schema", self._schema_text),
                Route("/schemas/ids/{schema_id:int}/versions", self._schema_versions),
                Route("/config", self._global_level, methods=["GET"]),
                Route("/config", self._set_level, methods=["PUT"]),
                Route("/config/{subject}", self._level, methods=["GET"]),
                Route("/config/{subject}", self._set_level, methods=["PUT"]),
                Route("/compatibility/subjects/{subject}/versions", self._compatibility, methods=["POST"]),
                Route("/compatibility/subjects/{subject}/versions/{version}", self._compatibility, methods=["POST"]),
            ],
            exception_handlers={RefusalError: _refusal, HTTPException: _not_served},
        )

    async def _root(self, _request: Request) -> Response:
        return _Answer({})

    async def _types(self, _request: Request) -> Response:
        return _Answer(["AVRO"])

    async def _subjects(self, _request: Request) -> Response:
        return _Answer(self._store.subjects())

    async def _look_up(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        return self._to_answer(subject, self._store.look_up(subject, await _schema_of(request)))

    async def _delete(self, request: Request) -> Response:
        permanent = request.query_params.get("permanent") == "true"
        return _Answer(self._store.delete(request.path_params["subject"], permanent=permanent))

    async def _versions(self, request: Request) -> Response:
        versions = self._store.versions(request.path_params["subject"])
        return _Answer([version.version for version in versions])

    async def _register(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        return _Answer({"id": self._store.register(subject, await _schema_of(request)).schema_id})

    async def _version(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        return self._to_answer(subject, self._store.version(subject, request.path_params["version"]))

    async def _version_schema(self, request: Request) -> Response:
        version = self._store.version(request.path_params["subject"], request.path_params["version"])
        return PlainTextResponse(self._store.schema(version.schema_id), media_type=_MEDIA_TYPE)

    async def _schema(self, request: Request) -> Response:
        return _Answer({"schema": self._store.schema(request.path_params["schema_id"])})

    async def _schema_text(self, request: Request) -> Response:
        return PlainTextResponse(self._store.schema(request.path_params["schema_id"]), media_type=_MEDIA_TYPE)

    async def _schema_versions(self, request: Request) -> Response:
        uses = self._store.uses(request.path_params["schema_id"])
        return _Answer([{"subject": subject, "version": version} for subject, version in uses])

    async def _global_level(self, _request: Request) -> Response:
        return _Answer({"compatibilityLevel": self._store.level()})

    async def _level(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        use_global = request.query_params.get("defaultToGlobal") == "true"
        level = self._store.level(subject) if use_global else self._store.own_level(subject)
        return _Answer({"compatibilityLevel": level})

    async def _set_level(self, request: Request) -> Response:
        level = (await _body(request)).get("compatibility")
        self._store.set_level(str(level), request.path_params.get("subject"))
        return _Answer({"compatibility": level})

    async def _compatibility(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        number = request.path_params.get("version")
        earlier = self._store.versions(subject) if number is None else [self._store.version(subject, number)]
        reasons = self._store.incompatibilities(subject, await _schema_of(request), earlier)
        answer: dict[str, Any] = {"is_compatible": not reasons}
        if request.query_params.get("verbose") == "true":
            answer["messages"] = reasons
        return _Answer(answer)

    def _to_answer(self, subject: str, version: Version) -> Response:
        return _Answer(
            {
                "subject": subject,
                "version": version.version,
                "id": version.schema_id,
                "schema": self._store.schema(version.schema_id),
            }
        )


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise RefusalError(400, f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RefusalError(400, "The body is not a JSON object")
    return body


async def _schema_of(request: Request) -> str:
    body = await _body(request)
    if body.get("schemaType", "AVRO") != "AVRO" or body.get("references"):
        raise RefusalError(42201, "Invalid schema: this stand-in supports Avro schemas without references only")
    schema = body.get("schema")
    if not isinstance(schema, str):
        raise RefusalError(42201, "Invalid schema: 'schema' is not a string")
    return schema


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)  # noqa: S101 - Starlette hands over the type registered above
    status = int(str(error.code)[:3])
    return _Answer({"error_code": error.code, "message": str(error)}, status_code=status)


async def _not_served(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette hands over the type registered above
    status = error.status_code
    return _Answer({"error_code": status, "message": f"HTTP {status} {error.detail}"}, status_code=status)


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="Port on 127.0.0.1.")
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory of the schemas."
)
@click.option("--parent-pid", type=int, help="Process to end with; by default the one that started this.")
def main(*, port: int, data_dir: Path, parent_pid: int | None) -> None:
    """Serve the registry stand-in until SIGTERM or until the parent process ends."""
    die_with_parent(parent_pid)
    app = Registry(SchemaStore(data_dir)).app()
    uvicorn.run(app, host=HOST, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
