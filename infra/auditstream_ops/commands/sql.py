"""``auditstream sql``."""

import shutil
import sys
from typing import TYPE_CHECKING, cast

import click
from typed_settings import click_options

from auditstream_ops.clickhouse import clickhouse_errors, connect
from auditstream_schemas.settings import ClickHouseSettings, loaders

if TYPE_CHECKING:
    from _typeshed import SupportsRead


@click.command()
@click.argument("query")
@click_options(ClickHouseSettings, loaders(), argname="settings", show_envvars_in_help=True)
@click.option(
    "--format",
    "format_",
    default="PrettyCompact",
    show_default=True,
    help="Output format of ClickHouse, for a query without a FORMAT clause of its own.",
)
def sql(query: str, settings: ClickHouseSettings, *, format_: str) -> None:
    """Run QUERY on ClickHouse and print the result; for -, the query is read from standard input.

    The query runs read-only. The view `events` has one row for each event. A FORMAT clause in the query overrides
    --format.

    \b
    Examples:
      auditstream sql "SELECT action, count() FROM events GROUP BY action ORDER BY 2 DESC"
      auditstream sql "SELECT * FROM events WHERE actor.id = 'u7' LIMIT 5 FORMAT Vertical"
      auditstream sql "SELECT id, payload FROM events FORMAT JSONEachRow" > events.ndjson
    """  # noqa: D301 - \b tells click to keep the lines that follow as they are
    text = sys.stdin.read() if query == "-" else query
    client = connect(settings)
    with (
        clickhouse_errors(),
        client.raw_stream(
            text,
            settings={"database": settings.clickhouse_database, "readonly": 2, "default_format": format_},
            use_database=False,
        ) as answer,
    ):
        shutil.copyfileobj(cast("SupportsRead[bytes]", answer), sys.stdout.buffer)
    sys.stdout.flush()
