"""docs/scenarios.md names every planted bug with the invariant that it breaks, and every shipped scenario."""

from pathlib import Path

import sim
from sim.scenarios import names
from sim.swarm.bugs import BUGS
from sim.swarm.witness import Invariant

PAGE = Path(sim.__file__).parent.parent / "docs" / "scenarios.md"


def test_the_page_has_a_row_for_each_bug_invariant_and_scenario() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for bug in BUGS.values():
        assert f"| `{bug.name}`: {bug.about} | {bug.breaks.value} |" in text
    for invariant in Invariant:
        assert f"| {invariant.value} |" in text
    for name in names():
        assert f"| `{name}` |" in text
