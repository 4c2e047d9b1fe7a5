"""The comparator: what it must notice, and what a declared field must be."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.experiments.noninterference.comparison import Difference, compare
from sim.experiments.noninterference.derived import World
from sim.experiments.noninterference.experiment import twin_script
from sim.experiments.noninterference.recording import Recording, record
from sim.experiments.noninterference.trace import Observation, Trace


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    with tempfile.TemporaryDirectory() as folder:
        yield record(twin_script(4, 24), Path(folder))


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def difference(recording: Recording, changed: list[Observation]) -> Difference | None:
    trace = Trace()
    trace.observations = changed
    worlds = [World(recording.bodies(0), recording.link_keys, recording.signing_key) for _ in range(2)]
    return compare(recording.trace, worlds[0], trace, worlds[1]).difference


def with_first_row(recording: Recording, table: str, field: str) -> list[Observation]:
    """The trace with one bit turned in the first row of a table that is not empty."""
    changed = list(recording.trace.observations)
    for at, seen in enumerate(changed):
        if seen.kind == "rows" and seen.value[table]:
            first: Any = seen.value[table][0]
            rows = [first._replace(**{field: flipped(getattr(first, field))}), *seen.value[table][1:]]
            changed[at] = Observation(seen.at_ms, seen.kind, {**seen.value, table: rows})
            return changed
    raise AssertionError(f"no {table} in this run")


def test_trace_is_equal_to_itself(recording: Recording) -> None:
    assert difference(recording, list(recording.trace.observations)) is None


@pytest.mark.parametrize(
    ("table", "field", "path"),
    [
        ("envelopes", "body", "rows.envelopes[].body"),
        ("envelopes", "envelope_id", "rows.envelopes[].envelope_id"),
        ("commits", "signature", "rows.commits[].signature"),
        ("commits", "leaves", "rows.commits[].leaves"),
        ("commits", "header", "rows.commits[].header.previous"),
        ("mailboxes", "device_key", "rows.mailboxes[].device_key"),
        ("prekeys", "record", "rows.prekeys[].record"),
    ],
)
def test_one_bit_of_a_row_is_found(recording: Recording, table: str, field: str, path: str) -> None:
    found = difference(recording, with_first_row(recording, table, field))
    assert found is not None
    assert found.field == path


def test_one_bit_of_a_sealed_frame_is_found(recording: Recording) -> None:
    changed = list(recording.trace.observations)
    at = next(at for at, seen in enumerate(changed) if seen.kind == "sent" and seen.value[1][0] == 4)
    tag, packet = changed[at].value
    changed[at] = Observation(changed[at].at_ms, "sent", (tag, flipped(packet)))
    found = difference(recording, changed)
    assert found is not None
    assert "not the sealed frame" in found.values[1]


def test_a_millisecond_is_found(recording: Recording) -> None:
    changed = list(recording.trace.observations)
    changed[9] = Observation(changed[9].at_ms + 1, changed[9].kind, changed[9].value)
    found = difference(recording, changed)
    assert found is not None
    assert (found.step, found.path) == (9, ":when")


def test_an_observation_less_is_found(recording: Recording) -> None:
    found = difference(recording, recording.trace.observations[:-1])
    assert found is not None
    assert found.step == len(recording.trace.observations) - 1
    assert "nothing" in found.values


def test_difference_says_where_and_hashes_long_values(recording: Recording) -> None:
    found = difference(recording, with_first_row(recording, "envelopes", "body"))
    assert found is not None
    text = str(found)
    assert text.startswith("step ")
    assert "rows.envelopes[0].body" in text
    assert "SHA-256" in text
