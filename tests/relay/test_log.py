"""The log holds the lines of protocol.md section 10 and nothing else, whatever it is given."""

import enum
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.log import RelayLog
from tests.relay.running import PROJECT

TIME = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"
NUMBER = "(0|[1-9][0-9]*)"
# Word for word from the specification: events and the names of their numbers, in order.
SPEC = """
started pid partition      ready      stopping      stopped
committed index envelopes acks bytes        aborted envelopes
checkpointed pages         linked links     refused code count      rotated index      disclosed files memory
"""
EVENTS = [words.split() for words in re.split(r"\s{2,}|\n", SPEC) if words.strip()]
LINE = re.compile(
    f"{TIME} (" + "|".join(event + "".join(f" {name}={NUMBER}" for name in names) for event, *names in EVENTS) + r")\n",
    re.ASCII,
)
NOW_MS = 1_448_841_600_123


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode("ascii").splitlines(keepends=True)


def test_every_event_of_the_specification_is_a_method_and_writes_its_line(tmp_path: Path) -> None:
    log = RelayLog(tmp_path / "relay.log", lambda: NOW_MS)
    for event, *names in EVENTS:
        getattr(log, event)(*range(1, len(names) + 1))
    log.close()
    written = lines(tmp_path / "relay.log")
    assert len(written) == len(EVENTS) == 11
    for line, (event, *names) in zip(written, EVENTS, strict=True):
        numbers = "".join(f" {name}={number}" for number, name in enumerate(names, 1))
        assert line == f"2015-11-30T00:00:00Z {event}{numbers}\n"
        assert LINE.fullmatch(line)
    public = {name for name in vars(RelayLog) if not name.startswith("_")}
    public -= {"close", "time_s", "not_before"}
    assert public == {event for event, *_ in EVENTS}


class Code(enum.IntEnum):
    FULL = 4


hostile = st.one_of(
    st.text(),
    st.binary(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.just(Code.FULL),
    st.just("1\n2015-11-30T00:00:00Z ready"),
    st.just("ana@acme.example"),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(EVENTS), st.data())
def test_hostile_values_are_refused_or_written_within_the_grammar(
    tmp_path: Path, event: list[str], data: st.DataObject
) -> None:
    path = tmp_path / "relay.log"
    path.unlink(missing_ok=True)
    log = RelayLog(path, lambda: NOW_MS)
    method: Callable[..., None] = getattr(log, event[0])
    try:
        method(*(data.draw(hostile) for _ in event[1:]))
    except (TypeError, ValueError, OverflowError):
        assert lines(path) == []
    else:
        assert all(LINE.fullmatch(line) for line in lines(path))
        assert len(lines(path)) == 1
    finally:
        log.close()


def test_a_line_that_the_disk_does_not_take_is_counted_and_leaves_no_part(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    log = RelayLog(path, lambda: NOW_MS)
    log.ready()
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.ready()
    full = RelayLog(Path("/dev/full"), lambda: NOW_MS)
    full.ready()
    assert full.lost == 1
    full.close()
    assert [bool(LINE.fullmatch(line)) for line in lines(path)] == [True]


def test_a_line_of_which_only_a_part_fits_is_taken_back(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from relay.log import RelayLog\n"
        "log = RelayLog(Path(sys.argv[1]), lambda: 0)\n"
        "log.ready()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))\n"
        "log.ready()\n"
        "assert log.lost == 1, log.lost\n"
    )
    path = tmp_path / "relay.log"
    subprocess.run([sys.executable, "-c", program, path], cwd=PROJECT, check=True)
    assert path.read_bytes() == b"1970-01-01T00:00:00Z ready\n"


def test_the_file_is_the_owners_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    for _ in range(2):
        log = RelayLog(path, lambda: NOW_MS)
        log.ready()
        log.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(lines(path)) == 2


def test_times_never_fall_across_a_restart_either(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    for clock_ms in (NOW_MS, NOW_MS - 9_000_000):
        log = RelayLog(path, lambda at=clock_ms: at)  # type: ignore[misc]
        log.ready()
        log.stopped()
        log.close()
    assert {line[:20] for line in lines(path)} == {"2015-11-30T00:00:00Z"}
    path.write_bytes(b"no time in it\n")
    log = RelayLog(path, lambda: NOW_MS)
    log.ready()
    log.close()
    assert lines(path)[-1] == "2015-11-30T00:00:00Z ready\n"


def test_counts_beyond_their_bound_are_written_as_it(tmp_path: Path) -> None:
    log = RelayLog(tmp_path / "relay.log", lambda: NOW_MS)
    log.refused(4, 10**12)
    log.linked(10**12)
    log.checkpointed(10**12)
    log.close()
    written = [line.split(" ", 1)[1] for line in lines(tmp_path / "relay.log")]
    assert written == ["refused code=4 count=1000000\n", "linked links=65535\n", "checkpointed pages=4194304\n"]
