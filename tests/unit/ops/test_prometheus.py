"""The alerts of infra/prometheus use metrics and labels that exist, and each has a section in the runbook."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from auditstream_sink.metrics import METRICS, PREFIX

DIRECTORY = Path(__file__).parents[3] / "infra" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((DIRECTORY / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
LABELS = {
    f"{PREFIX}{metric.name}{suffix}": metric.label
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}


def test_the_configuration_includes_the_alerts() -> None:
    configuration = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text("utf-8"))
    assert all((DIRECTORY / name).is_file() for name in configuration["rule_files"])
    [job] = configuration["scrape_configs"]
    assert any(f'up{{job="{job["job_name"]}"}}' in rule["expr"] for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    metrics = set(re.findall(rf"{PREFIX}\w+", rule["expr"]))
    assert metrics or "up{" in rule["expr"]
    assert metrics <= set(LABELS)
    grouped = set(re.findall(r"by \((\w+)\)", rule["expr"]))
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) - {"instance"}
    assert grouped | labels <= {LABELS[name] for name in metrics}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_links_to_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in (DIRECTORY.parents[1] / path).read_text("utf-8")


def test_every_metric_that_the_docs_name_exists() -> None:
    for page in [*DIRECTORY.parent.glob("docs/*.md"), *DIRECTORY.parents[1].glob("consumers/docs/*.md")]:
        named = set(re.findall(rf"{PREFIX}\w+", page.read_text("utf-8")))
        unknown = {name for name in named if name not in LABELS and f"{name}_bucket" not in LABELS}
        assert not unknown, page
