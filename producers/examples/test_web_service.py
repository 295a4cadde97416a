"""Tests of the web service with `CapturingProducer`: no broker, no registry."""

from fastapi.testclient import TestClient

from auditstream_producer.testing import CapturingProducer
from examples.web_service import create_app


def test_a_new_context_is_audited() -> None:
    audit = CapturingProducer()
    with TestClient(create_app(audit)) as client:
        response = client.post("/contexts/deploy", headers={"user": "u-17"})
    assert response.status_code == 201
    (event,) = audit.events
    assert event.action == "context.create"
    assert event.actor.id == "u-17"
    assert response.json() == {"event_id": str(event.id)}


def test_without_an_audit_event_there_is_no_change() -> None:
    audit = CapturingProducer(queue_events=0)  # every emit raises QueueFullError
    with TestClient(create_app(audit)) as client:
        assert client.post("/contexts/deploy", headers={"user": "u-17"}).status_code == 503
    assert audit.events == []
