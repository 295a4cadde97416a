"""Exports as jobs: requested over Kafka, run by exporters, their state in ClickHouse."""

from auditstream_export.jobs.export_job import SUFFIXES, ExportJob, JobFile, JobState, Suffix
from auditstream_export.jobs.export_jobs import ExportJobs, OpenFile
from auditstream_export.jobs.exporter import Exporter

__all__ = ["SUFFIXES", "ExportJob", "ExportJobs", "Exporter", "JobFile", "JobState", "OpenFile", "Suffix"]
