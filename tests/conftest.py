import faulthandler
import os

import pytest

pytest_plugins = ["tests.support.stack", "tests.support.browser"]


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    # Of a crash, show the thread that crashed. The others go on while their frames are walked, which has hung.
    faulthandler.enable(file=os.dup(2), all_threads=False)
