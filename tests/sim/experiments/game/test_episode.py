"""An episode on the real relay: repeatable, the same in both worlds but for ciphertext, and different for a twin."""

from typing import Any

import pytest

from sim.experiments.game.chance import Chance
from sim.experiments.game.episode import Seen, play
from sim.experiments.game.plan import View
from sim.experiments.game.stage import START_MS, Stage
from sim.experiments.game.suites import HONEST, SUITES, Suite
from wire.codec import decode
from wire.commands import Submit
from wire.receipt import CommitHeader


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


def _seen(stage: Stage, number: int, view: View, world: int, suite: Suite = HONEST) -> Seen:
    chance = Chance(1, "episode", number)
    chance.world = world
    return play(stage, suite, chance, view)


def _leakage(seen: Seen) -> tuple[Any, ...]:
    """What remains when bodies and what is computed of them are taken out."""
    return (
        [(row.mailbox, row.group, row.place, row.expiry, len(row.body)) for row in seen.rows],
        [(row.mailbox, row.number, row.reason, row.leaf, row.expiry) for row in seen.tombstones],
        [(header.index, header.time_ms, header.leaf_count) for header in map(_header, seen.commits)],
        seen.log,
        [
            (frame.at_ms, frame.up, frame.size, [type(command).__name__ for command in frame.commands])
            for frame in seen.frames
        ],
    )


def _header(row: Any) -> CommitHeader:
    return decode(CommitHeader, row.header, "commit header")


@pytest.mark.parametrize("view", list(View))
def test_one_number_is_one_episode_to_the_byte(stage: Stage, view: View) -> None:
    for suite in (HONEST, *SUITES.values()):
        assert _seen(stage, 4, view, 1, suite) == _seen(stage, 4, view, 1, suite)
    # ... also from another stage, as in another process.
    assert _seen(Stage(), 4, view, 1) == _seen(stage, 4, view, 1)


@pytest.mark.parametrize("view", list(View))
def test_both_worlds_leak_the_same(stage: Stage, view: View) -> None:
    for number in range(12):
        one, other = (_seen(stage, number, view, world) for world in (0, 1))
        assert _leakage(one) == _leakage(other)
        assert not {row.body for row in one.rows} & {row.body for row in other.rows}


@pytest.mark.parametrize("name", ["no padding", "timed", "ordered"])
def test_a_twin_that_leaks_beside_the_bodies_changes_what_is_seen(stage: Stage, name: str) -> None:
    for view in View:
        one, other = (_seen(stage, 4, view, world, SUITES[name]) for world in (0, 1))
        assert _leakage(one) != _leakage(other)


def test_the_disclosure_has_what_waits_and_tombstones_of_the_rest(stage: Stage) -> None:
    tombstones = 0
    for number in range(20):
        seen = _seen(stage, number, View.DISCLOSURE, 0)
        submitted = sum(line.envelopes for line in seen.log)
        assert (
            submitted == len(seen.rows) + len(seen.tombstones) == sum(_header(row).leaf_count for row in seen.commits)
        )
        assert sum(row.mailbox == 3 for row in seen.rows) >= 2, "the tablet is off, and two messages are for it"
        assert not seen.frames
        tombstones += len(seen.tombstones)
    assert tombstones > 20


def test_the_live_view_has_every_envelope_and_frames_in_both_directions(stage: Stage) -> None:
    seen = _seen(stage, 4, View.LIVE, 0)
    submits = [command for frame in seen.frames for command in frame.commands if isinstance(command, Submit)]
    assert [row.body for row in seen.rows] == [item.body for command in submits for item in command.envelopes]
    assert any(not frame.up and frame.size > len(seen.rows[0].body) for frame in seen.frames), "mail is delivered"
    assert all(frame.at_ms >= START_MS for frame in seen.frames)
    assert not seen.log


def test_episodes_leave_the_stage_as_it_was(stage: Stage) -> None:
    _seen(stage, 4, View.DISCLOSURE, 0)
    assert not stage.store.envelopes
    assert not stage.store.tombstones
    assert not stage.store.commits


def test_keys_are_not_shown(stage: Stage) -> None:
    assert stage.signing_key.seed.hex() not in repr(stage)
    assert repr(Chance(1, "episode", 4)).endswith("seed=<redacted>)")
