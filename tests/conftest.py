import faulthandler
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.fix_stack", "tests.support.fix_browser"]

_TESTS = Path(__file__).parent
_SLOW_FOLDERS = ("integration", "e2e")

# A test must not fail because the machine is busy: hence no deadline.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("full", **_COMMON)  # type: ignore[arg-type]
settings.register_profile("quick", max_examples=10, **_COMMON)  # type: ignore[arg-type]


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    # After a crash, only the crashed thread is printed: walking the frames of threads that still run has hung.
    faulthandler.enable(file=os.dup(2), all_threads=False)
    is_quick = "not slow" in str(config.getoption("markexpr", ""))
    settings.load_profile("quick" if is_quick else "full")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that starts servers or a browser as slow, so that -m "not slow" needs neither."""
    for item in items:
        if item.path.relative_to(_TESTS).parts[0] in _SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)
