"""A ClickHouse front of a test's own."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlencode

import psutil
import urllib3

COMMAND = [sys.executable, "-m", "auditstream_local.clickhouse", "--port", "0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A front that runs."""

    url: str
    data_dir: Path
    process: subprocess.Popen[str]
    pool: urllib3.PoolManager

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def spooled(self) -> list[str]:
        return [path.name for path in (self.data_dir / "spool").iterdir()]

    def resident(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def send(
        self, body: str | bytes, headers: dict[str, str] | None = None, **parameters: str
    ) -> urllib3.BaseHTTPResponse:
        return self.pool.request("POST", f"{self.url}/?{urlencode(parameters)}", body=body, headers=headers)

    def ask(self, sql: str | bytes, **parameters: str) -> str:
        response = self.send(sql, None, **parameters)
        assert response.status == 200, response.data
        return response.data.decode().rstrip("\n")


@contextmanager
def running_front(data_dir: Path, *options: str) -> Iterator[Front]:
    process = subprocess.Popen([*COMMAND, "--data-dir", str(data_dir), *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        word, _, url = process.stdout.readline().strip().partition(" ")
        assert word == "clickhouse"
        with urllib3.PoolManager(maxsize=20, retries=False) as pool:
            yield Front(url=url, data_dir=data_dir, process=process, pool=pool)
    finally:
        process.kill()
        process.communicate()


def eventually(holds: Callable[[], bool], what: str, patience: float = 20.0) -> None:
    deadline = monotonic() + patience
    while not holds():
        assert monotonic() < deadline, f"not in {patience} s: {what}"
        sleep(0.02)
