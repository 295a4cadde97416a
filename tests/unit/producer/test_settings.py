import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from auditstream_producer import ProducerSettings
from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import load

README = Path(__file__).parents[3] / "producers" / "README.md"


def test_the_readme_lists_every_setting_with_its_default_and_help() -> None:
    rows = re.findall(r"^\| `(AUDITSTREAM_\w+)` \| (.*?) \| (.*?) \|$", README.read_text("utf-8"), re.MULTILINE)
    expected = [
        (
            f"AUDITSTREAM_{field.name.upper()}",
            "" if field.default is None else f"`{field.default}`",
            field.metadata["typed-settings"]["help"],
        )
        for field in dataclasses.fields(ProducerSettings)
    ]
    assert rows == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"catalog_mode": "sometimes"},
        {"producer_queue_events": 0},
        {"producer_queue_bytes": -1},
        {"producer_delivery_timeout": 0},
        {"producer_delivery_timeout": float("inf")},
        {"producer_delivery_timeout": float("nan")},
        {"producer_close_timeout": -1},
        {"producer_close_timeout": float("inf")},
    ],
    ids=str,
)
def test_a_number_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        ProducerSettings(**wrong)


def test_a_wrong_mode_in_the_environment_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSTREAM_CATALOG_MODE", "sometimes")
    with pytest.raises(SettingsError, match="sometimes"):
        load(ProducerSettings)


def test_a_wrong_number_in_the_environment_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSTREAM_PRODUCER_QUEUE_EVENTS", "0")
    with pytest.raises(SettingsError, match="producer_queue_events"):
        load(ProducerSettings)


def test_the_file_may_tune_and_log_in(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("linger.ms=50\nsasl.password=x=y\nacks=all\n")
    found = ProducerSettings(kafka_config_file=file).librdkafka_producer()
    assert found["linger.ms"] == "50"
    assert found["sasl.password"] == "x=y"
    assert found["compression.type"] == "lz4"


@pytest.mark.parametrize(
    "line", ["acks=1", "enable.idempotence=false", "partitioner=random", "message.timeout.ms=1000"]
)
def test_the_file_may_not_weaken_a_promise(tmp_path: Path, line: str) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(line)
    with pytest.raises(SettingsError, match=re.escape(line)):
        ProducerSettings(kafka_config_file=file).librdkafka_producer()


def test_the_delivery_timeout_reaches_librdkafka_in_milliseconds() -> None:
    found = ProducerSettings(producer_delivery_timeout=1.5).librdkafka_producer()
    assert found["message.timeout.ms"] == "1500"
