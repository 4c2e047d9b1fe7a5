"""A benchmark that is told to end ends its servers and its load first, however it was started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.processes import family_of

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
SOAK = ("soak", "--minutes", "3", "--rate", "20")


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.nats_server
@pytest.mark.parametrize(
    "words", [("benchmarks", *SOAK), ("benchmarks.reference", "soak"), ("blindpost", "bench", *SOAK)]
)
def test_a_terminated_run_leaves_no_server_behind(words: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    family: list[int] = []
    try:
        deadline = time.monotonic() + WAIT_S
        # Broker, relay and load.
        while len(family := family_of(run.pid)) < 4:
            assert run.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "it starts nothing"
            time.sleep(0.05)
        # Each is in hand, and the run waits for messages.
        time.sleep(0.5)
        family = family_of(run.pid)
        run.send_signal(signal.SIGTERM)
        assert run.wait(WAIT_S) == 128 + signal.SIGTERM
        assert [pid for pid in family if runs(pid)] == []
        assert list(tmp_path.iterdir()) == [], "its temporary folder is gone as well"
    finally:
        for pid in family:
            if runs(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if run.poll() is None:
            run.kill()
        run.wait(WAIT_S)


def test_what_sigterm_did_before_it_does_again_after_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    before, meanwhile = signal.getsignal(signal.SIGTERM), []

    def measured(_words: list[str]) -> int:
        meanwhile.append(signal.getsignal(signal.SIGTERM))
        return 0

    monkeypatch.setattr("benchmarks.store.main", measured)
    assert main(["store"]) == 0
    assert meanwhile != [before]
    assert signal.getsignal(signal.SIGTERM) is before
