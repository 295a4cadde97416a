"""A web service that emits an audit event for each change, and closes its producer when it stops.

Run it with: uvicorn examples.web_service:create_app --factory
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

from auditstream_producer import AuditProducer, DeliveryFailure, EventEmitter
from auditstream_schemas import QueueFullError

UNDELIVERED = Path("undelivered.ndjson")


def save(failure: DeliveryFailure) -> None:
    """Save an undelivered event to a file that `auditstream emit` can send later."""
    with UNDELIVERED.open("a", encoding="utf-8") as file:
        file.write(failure.event.to_json() + "\n")


def create_app(audit: EventEmitter | None = None) -> FastAPI:
    """Make the service; a test passes a `CapturingProducer`."""
    contexts: dict[str, str] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One producer per worker process, made when the worker starts.
        app.state.audit = audit or AuditProducer.from_env(on_error=save)
        yield
        # close() blocks for up to AUDITSTREAM_PRODUCER_CLOSE_TIMEOUT seconds, so it runs in a thread.
        await asyncio.to_thread(app.state.audit.close)

    app = FastAPI(lifespan=lifespan)

    @app.post("/contexts/{name}", status_code=201)
    async def create_context(name: str, user: Annotated[str, Header()]) -> dict[str, str]:
        """Create a context. Without an audit event there is no change: a full queue is answered with 503."""
        try:
            # emit() does not block, so it may be called on the event loop.
            event_id = app.state.audit.emit(
                action="context.create",
                actor={"id": user, "type": "user"},
                target={"id": name, "type": "context", "name": name},
                payload={"name": name, "group_ids": []},
            )
        except QueueFullError as error:
            raise HTTPException(503, "the audit log is not available; try again later") from error
        contexts[name] = user
        return {"event_id": str(event_id)}

    return app
