"""The health port of a sink in another process, as a monitor sees it."""

import time
from collections.abc import Callable
from typing import Any

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from auditstream_local.server import free_ports
from auditstream_sink.metrics import PREFIX


class HealthPort:
    """A free port for a sink, and what is answered there.

    Attributes:
        env: The variable that tells a sink to answer there.
    """

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.env = {"AUDITSTREAM_HEALTH_ADDRESS": f":{port}"}
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON; status 0 while nobody answers."""
        try:
            answer = urllib3.request("GET", self._url + path, retries=False, timeout=10)
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return answer.status, answer.json()

    def figure(self, name: str) -> dict[str, float]:
        """A metric's values by its one label; by the empty string if it has none."""
        text = urllib3.request("GET", f"{self._url}/metrics", retries=False, timeout=10).data.decode()
        return {
            "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == PREFIX + name
        }

    def wait_until(self, well: Callable[[int, dict[str, Any]], bool], *, path: str = "/readyz") -> dict[str, Any]:
        """Ask until the answer is as wanted; gives its JSON."""
        deadline = time.monotonic() + 60
        while True:
            status, found = self.get(path)
            if well(status, found):
                return found
            assert time.monotonic() < deadline, (path, status, found)
            time.sleep(0.1)

    def wait_until_ready(self) -> None:
        """Until /readyz says 200."""
        self.wait_until(lambda status, _found: status == 200)

    def wait_until_it_waits_for(self, part: str) -> None:
        """Until /readyz says 503 and names the part; the loop is alive meanwhile."""
        self.wait_until(lambda status, found: status == 503 and part in found["waits_for"])
        assert self.get("/healthz")[0] == 200
        assert self.figure("waiting")[part] == 1
