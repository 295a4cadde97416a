"""The alerts of infra/prometheus use metrics that exist, by labels that they have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditstream_sink.clock import SystemClock
from auditstream_sink.metrics import METRICS, PREFIX, Metrics

DIRECTORY = Path(__file__).parents[3] / "infra" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((DIRECTORY / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
LABELS = {PREFIX + metric.name: metric.label for metric in METRICS}


def test_the_configuration_includes_the_alerts() -> None:
    configuration = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text("utf-8"))
    assert all((DIRECTORY / name).is_file() for name in configuration["rule_files"])
    [job] = configuration["scrape_configs"]
    assert any(f'up{{job="{job["job_name"]}"}}' in rule["expr"] for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    used = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
    assert used or "up{" in rule["expr"]
    exposed = {sample.name for family in Metrics(SystemClock()).registry.collect() for sample in family.samples}
    # A metric with a label of unknown values is not exposed before its first value.
    assert used <= exposed | set(LABELS)
    grouped = set(re.findall(r"by \((\w+)\)", rule["expr"]))
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
    assert grouped | named <= {LABELS[name] for name in used}
