import dataclasses
import re
from pathlib import Path

from auditstream_sink import DeadLetterSettings, SinkSettings
from auditstream_sink.metrics import METRICS, PREFIX
from auditstream_sink.statements import FAULTS

README = (Path(__file__).parents[3] / "consumers" / "README.md").read_text("utf-8").partition("## The page")[0]


def test_the_readme_lists_every_setting_of_the_sink_with_its_default_and_help() -> None:
    sink = README.partition("## Sink")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(AUDITSTREAM_\w+)` \| (.*?) \| (.*?) \|$", sink, re.MULTILINE)
    expected = [
        (
            f"AUDITSTREAM_{field.name.upper()}",
            "" if field.default == "" else f"`{field.default}`",
            field.metadata["typed-settings"]["help"],
        )
        for field in dataclasses.fields(SinkSettings)
        if field.name in DeadLetterSettings.__annotations__ or field.name in SinkSettings.__annotations__
    ]
    assert rows == expected


def test_the_readme_lists_every_metric() -> None:
    rows = re.findall(r"^\| `(auditstream_sink_\w+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    assert rows == [
        (PREFIX + metric.name, metric.kind, metric.unit, f"`{metric.label}`" if metric.label else "", metric.help)
        for metric in METRICS
    ]


def test_the_readme_explains_every_fault() -> None:
    explained = set(re.findall(r"`(\w+)`", README.partition("### Dead letters")[2].partition("### The flood limit")[0]))
    assert set(FAULTS) <= explained
