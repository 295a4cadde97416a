"""``auditstream exporter``."""

import json
import signal

import click
from typed_settings import click_options

from auditstream_export import Exporter, ExportJob, JobSettings
from auditstream_ops.self_audit import DELIVERY_SECONDS, TrailEmitter
from auditstream_schemas.settings import loaders


@click.command()
@click_options(JobSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option(
    "--until-idle",
    type=float,
    metavar="SECONDS",
    help="Stop after so many seconds without a job in any exporter; by default run until SIGTERM or Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each export that has ended as one JSON object.")
def exporter(settings: JobSettings, *, until_idle: float | None, as_json: bool) -> None:
    """Run the exports that were requested on the page or by `auditstream export jobs request`.

    Requests come from a topic, which `auditstream topics` makes. The exporters of one group share the requests; each
    runs one job at a time. Files and their manifests are written to AUDITSTREAM_EXPORT_TARGET, and removed after
    AUDITSTREAM_EXPORT_EXPIRE_DAYS. The state of each job is in ClickHouse, in the view `exports`.

    On SIGTERM or Ctrl-C the exporter leaves its job unfinished. The next exporter runs it again up to the same
    offsets, as after a crash, even by SIGKILL. If the part files are on its disk, it resumes the export. A failed
    export has an error and no files, and can be run again: `auditstream export jobs retry`. While ClickHouse is
    away, the exporter waits. At the end of each export the exporter emits an event (audit_log.export.finish), with
    the settings of `auditstream emit`.

    \b
    On a laptop:
      AUDITSTREAM_EXPORT_TARGET=exports auditstream exporter
    \b
    With a bucket, whose location and credentials are in the standard AWS variables:
      AUDITSTREAM_EXPORT_TARGET=s3://audit/exports AUDITSTREAM_EXPORT_KEY_FILE=key.pem auditstream exporter
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are

    def show(job: ExportJob) -> None:
        line = f"{job.id} {job.state}, rows: {job.rows:,} {job.error}".rstrip()
        click.echo(json.dumps(job.to_dict(), ensure_ascii=False) if as_json else line)

    with TrailEmitter(wait_seconds=DELIVERY_SECONDS) as emit:
        worker = Exporter(settings, emit, on_ended=show)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: worker.stop())
        worker.run(until_idle=until_idle)
