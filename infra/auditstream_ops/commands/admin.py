"""``auditstream admin``."""

import signal
import socket

import click
import uvicorn
from typed_settings import click_options

from auditstream_admin import AdminSettings, create_app
from auditstream_export import ExportJobs, JobSettings
from auditstream_ops.self_audit import TrailEmitter
from auditstream_schemas.errors import OperationError
from auditstream_schemas.settings import load, loaders

_STOP_SECONDS = 10


@click.command()
@click_options(AdminSettings, loaders(), argname="settings", show_envvars_in_help=True)
def admin(settings: AdminSettings) -> None:
    """Serve the audit log page and its API, until SIGTERM or Ctrl-C.

    Admins see the events of their own organisations, auditors see all events, others see none. For each view of
    events the page emits an event audit_log.*, with the settings of `auditstream emit`. With
    AUDITSTREAM_EXPORT_TARGET the page offers exports, which `auditstream exporter` runs.

    \b
    On a laptop, after `auditstream up`:
      auditstream admin --admin-sign-in development
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    listener = _listen(*settings.address)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    emitter = TrailEmitter()
    jobs = load(JobSettings)
    # Without a target for files there are no exporters, and the page offers no exports.
    exports = ExportJobs(jobs, emitter) if jobs.export_target else None
    app = create_app(settings, emitter, url=url, exports=exports)
    config = uvicorn.Config(
        app.asgi,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.admin_trusted_proxies),
        forwarded_allow_ips=settings.admin_trusted_proxies or None,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    click.echo(f"the audit log is at {app.url}", err=True)
    # uvicorn stops on a signal, then raises it again for the handlers set here. They ignore it, so that the process
    # sends the queued events before it ends.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    uvicorn.Server(config).run([listener])
    if exports is not None:
        exports.close()
    emitter.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # The address is printed next, and a client may connect at once.
        listener.listen()
    except OSError as error:
        raise OperationError(
            f"cannot listen on {host}, port {port}: {error.strerror}; give another AUDITSTREAM_ADMIN_ADDRESS"
        ) from error
    return listener
