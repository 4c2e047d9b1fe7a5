"""Work spread over processes: all of it is done, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from audit.errors import UnreadableError
from audit.keysearch.pool import spread
from audit.keysearch.settings import KeySearchError


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_every_task_is_done_once(workers: int) -> None:
    assert sorted(spread(range(7), lambda number: number * number, workers)) == [n * n for n in range(7)]


def _end(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _unreadable(_: int) -> int:
    raise UnreadableError("a file", "became shorter")


@pytest.mark.parametrize(("work", "text"), [(_end, "a worker ended early"), (_unreadable, "became shorter")])
def test_a_worker_that_ends_or_fails_is_told(work: Callable[[int], int], text: str) -> None:
    with pytest.raises(KeySearchError, match=text):
        list(spread(range(7), work, 2))


def test_workers_end_when_their_parent_is_killed() -> None:
    program = (
        "import os, time\n"
        "from audit.keysearch.pool import spread\n"
        "def work(_):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(0.3)\n"
        "    return 0\n"
        "list(spread(range(10_000), work, 2))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = {int(parent.stdout.readline()) for _ in range(4)}
        parent.kill()
        # Workers have it open until they end, so reading to its end lasts as long as they do.
        parent.stdout.read()
    assert workers
    assert not any(os.path.exists(f"/proc/{pid}/fd/1") for pid in workers)
