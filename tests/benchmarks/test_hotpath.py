"""The hot path's rig: all that it sends is receipted, delivered and erased, whichever way its devices are linked."""

from pathlib import Path

import pytest

from benchmarks.hotpath import STAGES, Rig, measure


@pytest.mark.parametrize("gateways", [False, True])
def test_each_stage_is_measured_and_every_envelope_is_erased(tmp_path: Path, gateways: bool) -> None:
    figures = measure(tmp_path, 4, 8, 2, 5, 400, gateways)
    assert set(figures) == {*STAGES, "sum"}
    assert all(figure > 0 for figure in figures.values())


def test_a_gateways_frame_holds_submits_to_different_mailboxes_of_shared_links(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "store.sqlite", 2, 5, a_link=250)
    rig.round([])
    assert rig.core.counters.links == 2
    rig.round(rig.single_submits(1, 4, 400, 0))
    assert rig.receipts == rig.delivered == 4
    assert rig.core.counters.frames_sent > 0
    assert len({mailbox.id for mailbox in rig.core._mailboxes.by_id.values() if mailbox.given}) == 4
