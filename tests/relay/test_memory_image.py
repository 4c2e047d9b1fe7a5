"""Memory images: what the process held is in them, it always goes on, and what cannot be read is listed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from relay import memory_image
from relay.disclosure import take_wholesale
from relay.memory_image import MemoryImageError, dirty_of, parse_maps, stopped, take
from tests.relay.running import PROJECT, RelayProcess, make_home

# The canary is joined at run time, so that it stands in no file, and not in this process's memory in one piece.
PARTS = ("planted", "in", "the", "heap", "of", "another", "process")
CHILD = (
    "import sys, time\n"
    "from relay.disclosure import allow_tracer\n"
    "allow_tracer(int(sys.argv[1]))\n"
    "kept = '-'.join(sys.argv[2:]).encode() + b'!'\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(0.01)\n"
)


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(os.getpid()), *PARTS], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate(timeout=20)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_image_holds_what_the_process_holds_and_the_process_goes_on(
    tmp_path: Path, child: "subprocess.Popen[str]"
) -> None:
    progress: list[tuple[str, int, int]] = []
    taken = take(child.pid, tmp_path / "memory", lambda *told: progress.append(told))
    image = (tmp_path / "memory/image.bin").read_bytes()
    assert b"-".join(part.encode() for part in PARTS) + b"!" in image
    assert len(image) == taken.image_bytes > 1_000_000
    assert state(child.pid) not in "Tt"
    pid, ranges = msgpack.unpackb((tmp_path / "memory/ranges.msgpack").read_bytes())
    assert pid == child.pid
    offset = 0
    names = set()
    for start, length, at, readable, name in ranges:
        assert start % 4_096 == length % 4_096 == 0
        assert at == offset
        offset += length * readable
        names.add(name)
    assert offset == len(image)
    assert {"[heap]", "[stack]"} <= names
    assert sum(1 for entry in ranges if not entry[3]) == taken.unreadable > 0
    assert "[stack]" in (tmp_path / "memory/maps.txt").read_text()
    assert progress[-1][1:] == (len(image), len(image))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "memory").iterdir())


def test_every_writable_readable_mapping_is_in_the_image(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    take(child.pid, tmp_path / "memory")
    _, ranges = msgpack.unpackb((tmp_path / "memory/ranges.msgpack").read_bytes())
    copied = {start for start, _, _, readable, _ in ranges if readable}
    for line in (tmp_path / "memory/maps.txt").read_text().splitlines():
        span, permissions = line.split()[:2]
        if permissions.startswith("rw"):
            assert int(span.partition("-")[0], 16) in copied, line


def test_the_process_goes_on_when_the_copy_fails(
    tmp_path: Path, child: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        assert state(child.pid) == "T"
        raise OSError("no space left")

    monkeypatch.setattr(memory_image, "_copy", fails)
    with pytest.raises(OSError, match="no space"):
        take(child.pid, tmp_path / "memory")
    assert state(child.pid) not in "Tt"


def test_attack_a_link_in_the_folders_place_leads_nowhere(
    tmp_path: Path, child: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where root takes the image, the relay's user owns the directory above: no file of root's may land elsewhere."""
    folder, elsewhere = tmp_path / "memory", tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = memory_image._copy

    def exchanged(*arguments: Any) -> memory_image.MemoryImage:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(elsewhere)
        return copy(*arguments)

    monkeypatch.setattr(memory_image, "_copy", exchanged)
    take(child.pid, folder)
    assert list(elsewhere.iterdir()) == []
    assert len(list((tmp_path / "moved").iterdir())) == 3


def test_the_process_goes_on_when_the_one_that_stopped_it_is_killed(child: "subprocess.Popen[str]") -> None:
    program = (
        "import sys, time\n"
        "from relay.memory_image import stopped\n"
        "with stopped(int(sys.argv[1])):\n"
        "    print('stopped', flush=True)\n"
        "    time.sleep(60)\n"
    )
    stopper = subprocess.Popen(
        [sys.executable, "-c", program, str(child.pid)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert stopper.stdout is not None
    assert stopper.stdout.readline() == "stopped\n"
    assert state(child.pid) == "T"
    stopper.send_signal(signal.SIGKILL)
    stopper.communicate(timeout=20)
    wait_running(child.pid)


def test_the_watchdog_lets_a_process_go_on_after_its_time(child: "subprocess.Popen[str]") -> None:
    with stopped(child.pid, seconds_max=0.2):
        assert state(child.pid) == "T"
        wait_running(child.pid)


def wait_running(pid: int) -> None:
    for _ in range(1_000):
        if state(pid) not in "Tt":
            return
        time.sleep(0.01)
    pytest.fail("the process is still stopped")


def test_a_process_that_is_gone_is_a_typed_error(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(20)
    with pytest.raises(MemoryImageError, match="cannot be stopped"):
        take(process.pid, tmp_path / "memory")


def test_maps_are_read_as_the_kernel_writes_them() -> None:
    maps = (
        "00400000-00401000 r--p 00000000 08:01 17                                 /bin/program\n"
        "00401000-00402000 rw-p 00001000 08:01 17                                 /bin/program\n"
        "00402000-00403000 r--p 00002000 08:01 17                                 /bin/program with spaces\n"
        "7f0000000000-7f0000002000 ---p 00000000 00:00 0 \n"
        "7f0000002000-7f0000003000 r--p 00000000 00:00 0 \n"
        "7ffd00000000-7ffd00001000 r--p 00000000 00:00 0                          [vvar]\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    smaps = (
        "00402000-00403000 r--p 00002000 08:01 17                                 /bin/program with spaces\n"
        "Rss:                   4 kB\nAnonymous:             4 kB\nSwap:                  0 kB\n"
        "00400000-00401000 r--p 00000000 08:01 17                                 /bin/program\n"
        "Rss:                   4 kB\nAnonymous:             0 kB\nSwap:                  0 kB\n"
    )
    assert dirty_of(smaps) == {0x402000}
    mappings = parse_maps(maps, dirty_of(smaps))
    assert [mapping.copied for mapping in mappings] == [False, True, True, False, True, False, False]
    assert [mapping.readable for mapping in mappings] == [True, True, True, False, True, False, False]
    assert mappings[2].name == "/bin/program with spaces"
    with pytest.raises(MemoryImageError, match="not a mapping"):
        parse_maps("nonsense", frozenset())


def test_the_relays_own_signing_seed_is_in_its_image_and_its_key_rotates(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    seed = home.load_keys().seed
    with RelayProcess(home) as relay:
        taken = take_wholesale(home.path, tmp_path / "out", memory=True)
        assert taken.memory is not None
        assert taken.memory.ranges > 20
        assert state(relay.pid) not in "Tt"
        assert relay.stop() == (0, "", "")
    # A declared class: the image holds the relay's operational key, which opens no content, and is used no more.
    assert seed in (tmp_path / "out/memory/image.bin").read_bytes()
    assert home.load_keys().seed != seed
