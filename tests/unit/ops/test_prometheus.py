"""The alerts of infra/prometheus ask for metrics that there are, by labels that they have."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditstream_sink.clock import Clock
from auditstream_sink.metrics import METRICS, PREFIX, Metrics

FOLDER = Path(__file__).parents[3] / "infra" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
LABELS = {PREFIX + metric.name: metric.label for metric in METRICS}


def test_the_configuration_reads_the_alerts() -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    assert all((FOLDER / name).is_file() for name in configuration["rule_files"])
    [job] = configuration["scrape_configs"]
    assert any(f'up{{job="{job["job_name"]}"}}' in rule["expr"] for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    asked = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
    assert asked or "up{" in rule["expr"]
    shown = {sample.name for family in Metrics(Clock()).registry.collect() for sample in family.samples}
    # What has a label of unknown values is not there yet.
    assert asked <= shown | set(LABELS)
    grouped = set(re.findall(r"by \((\w+)\)", rule["expr"]))
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
    assert grouped | told <= {LABELS[name] for name in asked}
