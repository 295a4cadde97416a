"""An export that broke off or was killed is resumed, and reads no complete slice from ClickHouse again."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from auditstream_export import ExportRequest, OutputFormat, export_events
from auditstream_schemas.errors import ExportError
from auditstream_schemas.settings import ClickHouseSettings
from auditstream_schemas.timestamp import from_datetime
from tests.support.events import START, make_event
from tests.support.fix_stack import Tenant
from tests.support.relay import Send, relay
from tests.support.stored_events import store
from tests.support.waiting import eventually

ALL = ExportRequest(start=from_datetime(START), end=from_datetime(START + timedelta(days=30)))
HOURS = 5
_EXPORTER = """
import sys
from auditstream_export import ExportRequest, export_events
from auditstream_schemas.settings import ClickHouseSettings, load
request = ExportRequest(start=int(sys.argv[1]), end=int(sys.argv[2]))
export_events(load(ClickHouseSettings), request, sys.argv[3], slice_rows=1, resume="resume" in sys.argv)
"""


@pytest.fixture
def settings(tenant: Tenant) -> ClickHouseSettings:
    settings = tenant.clickhouse("exporter")
    moments = (START + timedelta(hours=number % HOURS, seconds=number) for number in range(500))
    store(settings, [make_event(number, occurred_at=moment) for number, moment in enumerate(moments)])
    return settings


@pytest.mark.parametrize("name", ["all.csv.gz", "all.ndjson"])
def test_an_export_that_broke_off_is_resumed_at_its_last_checkpoint(
    settings: ClickHouseSettings, tmp_path: Path, name: str
) -> None:
    output_format = OutputFormat(format="ndjson" if "ndjson" in name else "csv")
    export_events(settings, ALL, tmp_path / f"whole-{name}", output_format=output_format, slice_rows=1)
    answers: list[bytes] = []

    def breaks_off_in_the_third(body: bytes, send: Send) -> bool:
        answers.append(body)
        if len(answers) == 3:
            send(body[: len(body) // 2])
            return False
        send(body)
        return True

    path = tmp_path / name
    with (
        relay(settings.clickhouse_url, breaks_off_in_the_third) as url,
        pytest.raises(ExportError, match="ClickHouse failed"),
    ):
        export_events(replace(settings, clickhouse_url=url), ALL, path, output_format=output_format, slice_rows=1)
    assert not path.exists()
    # Events that arrive meanwhile are beyond the watermark of the export.
    store(settings, [make_event(1000)])
    with pytest.raises(ExportError, match="is unfinished"):
        export_events(settings, ALL, path, output_format=output_format)
    with pytest.raises(ExportError, match="differs in to: resume it with its first options"):
        export_events(settings, replace(ALL, end=ALL.end + 1), path, output_format=output_format, resume=True)
    before = len(answers)
    with relay(settings.clickhouse_url, breaks_off_in_the_third) as url:
        result = export_events(
            replace(settings, clickhouse_url=url), ALL, path, output_format=output_format, resume=True
        )
    assert (result.rows, len(answers) - before) == (500, HOURS - 2)
    assert path.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_an_export_that_was_killed_is_resumed_at_its_last_checkpoint(
    tenant: Tenant, settings: ClickHouseSettings, tmp_path: Path
) -> None:
    export_events(settings, ALL, tmp_path / "whole.csv.zst", slice_rows=1)
    reached, go_on = threading.Event(), threading.Event()
    answers: list[bytes] = []

    def stalls_in_the_fourth(body: bytes, send: Send) -> bool:
        answers.append(body)
        if len(answers) == 4:
            reached.set()
            go_on.wait(60)
            return False
        send(body)
        return True

    with relay(settings.clickhouse_url, stalls_in_the_fourth) as url:
        arguments = [sys.executable, "-c", _EXPORTER, str(ALL.start), str(ALL.end), "all.csv.zst"]
        environment = {**os.environ, **tenant.env, "AUDITSTREAM_CLICKHOUSE_URL": url}
        exporter = subprocess.Popen(arguments, env=environment, cwd=tmp_path)
        assert reached.wait(60)
        # The fourth query starts while the third answer is read.
        journal = tmp_path / "all.csv.zst.part.journal"
        eventually(lambda: b'"slices_done": 3' in journal.read_bytes(), "three slices are done")
        eventually(lambda: len(answers) == HOURS, "the fifth query starts while the fourth answer is read")
        before = len(answers)
        exporter.send_signal(signal.SIGKILL)
        exporter.wait()
        go_on.set()
        assert sorted(path.name for path in tmp_path.glob("all*")) == ["all.csv.zst.part", "all.csv.zst.part.journal"]
        subprocess.run([*arguments, "resume"], env=environment, cwd=tmp_path, check=True, timeout=60)
    assert len(answers) - before == HOURS - 3
    assert (tmp_path / "all.csv.zst").read_bytes() == (tmp_path / "whole.csv.zst").read_bytes()
    assert [path.name for path in tmp_path.glob("all*part*")] == []
