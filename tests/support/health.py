"""Queries the health port of a sink in another process, as a monitor does."""

import time
from collections.abc import Callable
from typing import Any

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from auditstream_local.server import free_ports
from auditstream_sink.metrics import PREFIX


class HealthPort:
    """A free port for the health server of a sink.

    Attributes:
        env: The environment variable that gives the port to a sink.
    """

    def __init__(self) -> None:
        (port,) = free_ports(1)
        self.env = {"AUDITSTREAM_HEALTH_ADDRESS": f":{port}"}
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON; status 0 while there is no answer."""
        try:
            answer = urllib3.request("GET", self._url + path, retries=False, timeout=10)
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return answer.status, answer.json()

    def figure(self, name: str) -> dict[str, float]:
        """The values of a metric by its label; by the empty string if it has no label."""
        text = urllib3.request("GET", f"{self._url}/metrics", retries=False, timeout=10).data.decode()
        return {
            "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == PREFIX + name
        }

    def wait_until(
        self, is_expected: Callable[[int, dict[str, Any]], bool], *, path: str = "/readyz"
    ) -> dict[str, Any]:
        """Query until the answer is as expected; returns its JSON."""
        deadline = time.monotonic() + 60
        while True:
            status, answer = self.get(path)
            if is_expected(status, answer):
                return answer
            assert time.monotonic() < deadline, (path, status, answer)
            time.sleep(0.1)

    def wait_until_ready(self) -> None:
        """Wait until /readyz answers 200."""
        self.wait_until(lambda status, _answer: status == 200)

    def wait_until_it_waits_for(self, dependency: str) -> None:
        """Wait until /readyz answers 503 and names the dependency; meanwhile /healthz answers 200."""
        self.wait_until(lambda status, answer: status == 503 and dependency in answer["waits_for"])
        assert self.get("/healthz")[0] == 200
        assert self.figure("waiting")[dependency] == 1
