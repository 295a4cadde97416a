"""Emit audit events from a service."""

from auditstream_producer.emitter import DeliveryFailure, EventEmitter, ProducerStats
from auditstream_producer.producer import AuditProducer
from auditstream_producer.settings import ProducerSettings

__all__ = ["AuditProducer", "DeliveryFailure", "EventEmitter", "ProducerSettings", "ProducerStats"]
