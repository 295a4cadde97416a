import json
import re
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import GROUPS
from tests.benchmarks.figures import TARGETS, Figures
from tests.benchmarks.load import load

README = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text("utf-8")


def test_figures_are_written_as_a_list_of_names_values_and_units(tmp_path: Path) -> None:
    figures = Figures()
    figures.add("sink.limit", 200_000.0, "records/s", "a note")
    figures.add("sink.ours", 150_000.0, "records/s")
    figures.ratio("sink.ours.of_limit", "sink.ours", "sink.limit")
    figures.ratio("sink.ours.of_naive", "sink.ours", "sink.naive")
    figures.write(tmp_path / "build" / "bench.json")
    assert json.loads((tmp_path / "build" / "bench.json").read_text("utf-8")) == [
        {"name": "sink.limit", "value": 200_000.0, "unit": "records/s"},
        {"name": "sink.ours", "value": 150_000.0, "unit": "records/s"},
        {"name": "sink.ours.of_limit", "value": 0.75, "unit": "ratio"},
    ]


@pytest.mark.parametrize(("value", "verdict"), [(0.9, "met"), (0.89, "MISSED")])
def test_the_table_says_whether_a_target_is_met(value: float, verdict: str) -> None:
    figures = Figures()
    figures.add("sink.ours.of_limit", value, "ratio")
    assert re.search(rf"sink\.ours\.of_limit +{value} ratio +>= 0\.9 {verdict}$", figures.table())


def test_a_share_of_the_events_is_sent_again_later(tmp_path: Path) -> None:
    once = load(tmp_path, events=1000, resent=0.0)
    assert len(once.bodies) == len(set(once.bodies)) == once.events == 1000
    some_twice = load(tmp_path, events=1000, resent=0.1)
    assert some_twice.events == 1000
    assert sorted(set(some_twice.bodies)) == sorted(once.bodies)
    assert len(some_twice.bodies) == 1100


def test_the_readme_explains_every_target_and_every_group() -> None:
    explained = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)))
    for name in TARGETS:
        family = re.sub(r"^admin\.\d+\.", "admin.M.", name)
        family = re.sub(r"\.growth\.\d+\..*", ".growth.M.*", re.sub(r"\.latency\.\d+\..*", ".latency.R.p50", family))
        assert re.sub(r"^(export\..*)\.\d+$", r"\1", family) in explained, name
    assert set(GROUPS) <= explained
