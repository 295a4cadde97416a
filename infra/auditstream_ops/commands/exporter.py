"""``auditstream exporter``."""

import json
import signal

import click
from typed_settings import click_options

from auditstream_export import Exporter, ExportJob, JobSettings
from auditstream_ops.export_audit import emitting
from auditstream_schemas.settings import loaders


@click.command()
@click_options(JobSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option(
    "--until-idle",
    type=float,
    metavar="SECONDS",
    help="Stop when nobody had anything to do for so long; otherwise run until SIGTERM or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each export that ended as one JSON object.")
def exporter(settings: JobSettings, *, until_idle: float | None, as_json: bool) -> None:
    """Run the exports that were asked for, on the page or by `auditstream export jobs request`.

    Requests come from a topic, which `auditstream topics` makes; exporters of one group share them, one job at a time
    each. Files and their manifests go to AUDITSTREAM_EXPORT_TARGET, and are removed after
    AUDITSTREAM_EXPORT_EXPIRE_DAYS. Where a job stands is in ClickHouse, in the view `exports`.

    On SIGTERM or Ctrl-C the job in hand is left. After that, and after a crash, even SIGKILL, the next exporter takes
    it: up to the same offsets, and where it finds what was written so far on its disk it goes on from there. An
    export that fails says why, leaves no file, and can be run again: `auditstream export jobs retry`. While ClickHouse
    is away it waits. That an export has finished is an event of its own (audit_log.export.finish), for which the
    settings of `auditstream emit` hold.

    \b
    On a laptop:
      AUDITSTREAM_EXPORT_TARGET=exports auditstream exporter
    \b
    With a bucket, whose address and keys are in AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on:
      AUDITSTREAM_EXPORT_TARGET=s3://audit/exports AUDITSTREAM_EXPORT_KEY_FILE=key.pem auditstream exporter
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are

    def show(job: ExportJob) -> None:
        told = f"{job.id} {job.state}, rows: {job.rows:,} {job.error}".rstrip()
        click.echo(json.dumps(job.to_dict(), ensure_ascii=False) if as_json else told)

    with emitting() as emit:
        worker = Exporter(settings, emit, on_ended=show)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: worker.stop())
        worker.run(until_idle=until_idle)
