"""A sized run: one seed gives the same bytes, another seed does not; what people write arrives."""

from pathlib import Path

from sim.engine.outcome import Outcome
from sim.engine.run import run
from sim.report.pages import write_report
from sim.scenario.scenario import from_toml
from tests.sim.scenario.samples import SMALL

ORDER = (
    "order = [{ id = 'all', date = 2015-11-02T12:00:00, kind = 'wholesale-content', jurisdiction = 'Pakistan', "
    "issuer = 'the regulator' }]"
)


def ran(folder: Path, *changes: str, seed: int = 1) -> Outcome:
    return run(from_toml(SMALL, changes), folder, seed=seed)


def files_of(outcome: Outcome, folder: Path) -> dict[str, bytes]:
    write_report(outcome, folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("manifest.msgpack", "audit.html", "audit.json")
    }


def test_one_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    one, two, other = (
        files_of(ran(tmp_path / name, ORDER, seed=seed), tmp_path / name)
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    )
    assert one == two
    assert one["orders/all/disclosure/store/store.sqlite"] != other["orders/all/disclosure/store/store.sqlite"]
    assert {"hours.csv", "orders.csv", "assertions.csv", "summary.json", "timeline.html"} < set(one)


def test_everything_that_is_written_arrives_once(tmp_path: Path) -> None:
    outcome = ran(tmp_path)
    assert outcome.held, outcome.checks
    assert outcome.ledger.messages > 50
    assert outcome.ledger.total("shown") >= outcome.ledger.messages
    assert outcome.ledger.false_receipts == outcome.ledger.spoilt == outcome.ledger.strange == 0
