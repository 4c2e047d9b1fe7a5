"""What all tests share: how hard Hypothesis searches, and the programs that some tests need.

Hypothesis profiles, chosen by `HYPOTHESIS_PROFILE`, otherwise "ci" where the variable CI is set and "dev" elsewhere:

- ci: 50 examples, derived from the test itself, so that a run on the same code never differs from the last.
- dev: 50 examples, new ones in each run; failures are kept and tried first the next time.
- deep: 2,000 examples, for a search overnight.

None has a deadline, and none minds that examples are made slowly: a busy machine is no bug.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci",
    max_examples=50,
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", settings.get_profile("dev"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# The NATS server comes with the Python packages; Debian puts a broker into /usr/sbin, which is not on everybody's PATH.
_PROGRAM_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin"]
)
# By the name of the marker.
_PROGRAMS = {"mosquitto": "mosquitto", "chromium": "chromium", "nats_server": "nats-server"}


def find_program(name: str) -> str | None:
    """Return where a program lies, or None."""
    return shutil.which(name, path=_PROGRAM_PATH)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked with the name of a program that this machine does not have; in CI that is a failure."""
    for marker, name in _PROGRAMS.items():
        if item.get_closest_marker(marker):
            _require_program(name)


def _require_program(name: str) -> str:
    path = find_program(name)
    if path is not None:
        return path
    # A green run in CI that tried no broker would say more than it knows.
    if os.environ.get("CI"):
        pytest.fail(f"no {name} on this machine, and CI must have it (make test installs it)")
    pytest.skip(f"no {name} on this machine")


@pytest.fixture(scope="session")
def mosquitto_path() -> str:
    """Where the broker lies; skips the test where there is none."""
    return _require_program("mosquitto")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Where the browser lies; skips the test where there is none."""
    return _require_program("chromium")


@pytest.fixture(scope="session")
def nats_server_path() -> str:
    """Where the NATS server lies; skips the test where there is none."""
    return _require_program("nats-server")
