import re
from pathlib import Path
from typing import Any

import pytest

from auditstream_producer import ProducerSettings
from auditstream_schemas.errors import SettingsError
from auditstream_schemas.settings import load


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
def test_a_number_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
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


def test_the_librdkafka_file_may_tune_and_set_credentials(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("linger.ms=50\nsasl.password=x=y\nacks=all\n")
    config = ProducerSettings(kafka_config_file=file).librdkafka_producer()
    assert config["linger.ms"] == "50"
    assert config["sasl.password"] == "x=y"
    assert config["compression.type"] == "lz4"


@pytest.mark.parametrize(
    "line", ["acks=1", "enable.idempotence=false", "partitioner=random", "message.timeout.ms=1000"]
)
def test_the_librdkafka_file_may_not_weaken_a_promise(tmp_path: Path, line: str) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(line)
    with pytest.raises(SettingsError, match=re.escape(line)):
        ProducerSettings(kafka_config_file=file).librdkafka_producer()


def test_the_delivery_timeout_reaches_librdkafka_in_milliseconds() -> None:
    config = ProducerSettings(producer_delivery_timeout=1.5).librdkafka_producer()
    assert config["message.timeout.ms"] == "1500"
