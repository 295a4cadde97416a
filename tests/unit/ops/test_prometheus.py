"""The alerts of infra/prometheus use metrics and labels that exist, and each has a section in the runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditstream_sink.clock import Clock
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
    metrics = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
    assert metrics or "up{" in rule["expr"]
    exposed = {sample.name for family in Metrics(Clock()).registry.collect() for sample in family.samples}
    # A metric whose label has no known values is exposed only after its first value.
    assert metrics <= exposed | set(LABELS)
    grouped = set(re.findall(r"by \((\w+)\)", rule["expr"]))
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
    assert grouped | shown <= {LABELS[name] for name in metrics}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_links_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in (DIRECTORY.parents[1] / path).read_text("utf-8")
