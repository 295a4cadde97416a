import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_benchmarks_run_and_write_their_figures(backend: str, tmp_path: Path) -> None:
    if backend != "local":
        pytest.skip("a benchmark starts its own stack: once is enough")
    path = tmp_path / "bench.json"
    options = ["--only", "ratio", "--events", "4000", "--rounds", "1", "--json", str(path)]
    subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *options],
        cwd=REPOSITORY,
        check=True,
        timeout=240,
    )
    figures = {each["name"]: each for each in json.loads(path.read_text("utf-8"))}
    assert {"sink.limit", "sink.limit.default", "sink.ours", "sink.ours.of_limit", "sink.memory"} <= set(figures)
    assert all(set(each) == {"name", "value", "unit"} and each["value"] > 0 for each in figures.values())
    assert figures["sink.ours"]["unit"] == "records/s"
