"""The clerk: what a scenario says becomes what the relay's desk has on its docket and in its log."""

from pathlib import Path

import pytest

from audit.material import read_card
from audit.order_log import verify_log
from relay.core import answers
from relay.core.answers import Facts, Outcome
from relay.core.docket import OrderKind, OrderState
from relay.home import CARD_NAME
from relay.logkey import LOG_FOLDER
from relay.orders import Desk
from sim.orders.policy import KINDS, Answer, answer_to, decisions_of, is_for_relay
from sim.scenario.base import ScenarioError
from sim.scenario.scenario import from_toml
from sim.scenario.timeline import ORDER_KINDS
from tests.sim.orders.desks import ORDERS, Filing, filing
from wire.leaves import AnswerLeaf, ChangeLeaf, ExitLeaf, OpeningLeaf, OrderLeaf, SealedLeaf


def leaves_of(filed: Filing) -> list[object]:
    with Desk.at(filed.home.path, lambda: filed.now_s, bytes) as desk:
        return list(desk.leaves)


def test_everything_about_an_order_is_a_leaf_at_its_moment(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    filed.run()
    _begun, *leaves = leaves_of(filed)
    day_s = 86_400
    told = [(type(leaf), (leaf.logged_at - filed.scenario.start.unix_s) // day_s) for leaf in leaves]  # type: ignore[attr-defined]
    assert told == [
        (OrderLeaf, 1),
        (AnswerLeaf, 1),
        (ExitLeaf, 1),
        (OrderLeaf, 2),
        (AnswerLeaf, 2),
        (SealedLeaf, 3),
        (SealedLeaf, 3),
        (OrderLeaf, 4),
        (ChangeLeaf, 4),
        (SealedLeaf, 5),
        (SealedLeaf, 5),
        (ChangeLeaf, 9),
        (ExitLeaf, 9),
        (ChangeLeaf, 30),
        (ExitLeaf, 30),
        (OpeningLeaf, 34),
        (OpeningLeaf, 34),
    ]
    everything, record, quiet, who, silence, carriers = filed.served
    assert (everything.leaf, everything.answer_leaf, everything.answer) == (1, 2, Answer.LEAVING)
    assert everything.reading is not None
    assert everything.reading.size == 3
    assert (record.answer, who.answer, who.answer_leaf) == (Answer.PROVIDED, Answer.APPEALED, None)
    assert (quiet.answer, silence.answer) == (Answer.REFUSED, Answer.PROVIDED)
    assert (carriers.answer, carriers.leaf) == (Answer.NOT_OURS, None)
    steps = [(leaf.step, leaf.text) for leaf in leaves if isinstance(leaf, ExitLeaf)]
    assert steps[0] == ("announced", "Service in Pakistan ends on 2015-11-20: order 0.")
    assert steps[-1] == ("cancelled", "Service in Pakistan goes on: order 0 withdrawn.")


def test_what_is_published_verifies_from_the_card_alone_and_names_nobody(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    filed.run()
    out = tmp_path / "out"
    filed.clerk.publish(out)
    card = read_card((out / CARD_NAME).read_bytes(), CARD_NAME)
    log = verify_log(out / LOG_FOLDER, card, filed.now_s)
    assert log.holds, log.findings
    assert [order.kind for order in log.orders] == ["wholesale", "subscriber", "keys", "metadata", ""]
    assert [order.opened for order in log.orders] == [False, False, True, False, False]
    public = b"".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file())
    assert b"acme.example" not in public
    assert b"the regulator" in public
    private = (filed.home.path / "log.key").read_bytes()
    assert private not in public


def test_one_seed_gives_the_same_log_and_other_facts_another(tmp_path: Path) -> None:
    def files(name: str, facts: Facts | None = None) -> dict[str, bytes]:
        filed = filing(tmp_path / name, ORDERS)
        filed.run(facts)
        folder = filed.home.path / LOG_FOLDER
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    one, two = files("one"), files("two")
    assert one == two
    assert one != files("three", Facts(found=1, evidence=b"\1" * 32))


@pytest.mark.parametrize("policy", ["lawful-access", "leave-rather", "comply", "refuse-all"])
def test_the_desk_decides_what_the_scenario_says_for_every_kind_of_order(tmp_path: Path, policy: str) -> None:
    orders = [
        f"{{ id = '{kind}', kind = '{kind}', date = 2015-11-02, jurisdiction = 'Pakistan', issuer = 'x' }}"
        for kind in ORDER_KINDS
    ]
    changes = (f"order = [{', '.join(orders)}]", f"jurisdiction.0.policy = '{policy}'", "jurisdiction.0.answers = {}")
    filed = filing(tmp_path, ORDERS, *changes)
    # As a run finds it: somebody is there, and what can be handed over was.
    assert filed.run(Facts(found=1, evidence=b"\1" * 32, until_s=1_450_000_000)).holds
    jurisdiction = filed.scenario.jurisdiction[0]
    for done in filed.served:
        before = answer_to(done.order, jurisdiction)
        if done.order.kind == "ghost-device" and policy == "comply":
            # That one the run's operator does, and the relay has no code for it.
            assert (before, done.answer) == (Answer.PROVIDED, Answer.REFUSED)
            continue
        assert done.answer is before, done.order.kind
        assert (done.decision is None) == (not is_for_relay(done.order, jurisdiction))
        if done.decision is not None:
            assert done.decision is decisions_of(jurisdiction)[KINDS[done.order.kind]]


def test_a_ghost_that_was_put_is_answered_as_what_was_done(tmp_path: Path) -> None:
    ghost = "{ id = 'ghost', date = 2015-11-02, kind = 'ghost-device', jurisdiction = 'Canada', issuer = 'x' }"
    filed = filing(tmp_path, ORDERS, f"order = [{ghost}]", "jurisdiction.1.policy = 'comply'")
    filed.now_s = filed.scenario.order[0].date.unix_s
    received = filed.clerk.receive(filed.scenario.order[0], "p0@acme.example")
    done = filed.clerk.answer(received, Facts(found=1), ghost=True)
    assert done.answer is Answer.PROVIDED
    assert "was put on the list" in done.said
    assert answers.NOT_CLAIMED[OrderKind.GHOST] in done.said
    assert filed.clerk.finished(filed.now_s).holds
    with Desk.at(filed.home.path, lambda: filed.now_s, bytes) as desk:
        assert desk.docket.entry(0).state is OrderState.HONOURED
        text = desk.answer_text(0)
        assert text is not None
        assert text.outcome == Outcome.GIVEN.value


def test_what_was_honoured_is_neither_extended_nor_withdrawn_on_the_docket(tmp_path: Path) -> None:
    one = "kind = 'past-metadata', jurisdiction = 'Canada', issuer = 'x', deadline = 2015-11-10, withdrawn = 2015-11-08"
    moved = "extension = [{ on = 2015-11-05, deadline = 2015-11-12 }]"
    filed = filing(tmp_path, ORDERS, f"order = [{{ id = 'done', date = 2015-11-02, {one}, {moved} }}]")
    log = filed.run()
    assert log.holds, log.gaps
    assert [reading.after for reading in log.readings] == ["the beginning", "done: order and answer", "the end"]


def test_what_was_sealed_and_withdrawn_can_still_be_opened(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS, "order.2.withdrawn = 2015-12-01")
    log = filed.run()
    assert log.holds, (log.findings, log.gaps)


def test_an_issuer_of_several_lines_or_of_none_is_one_line_on_the_docket(tmp_path: Path) -> None:
    for name, issuer, wanted in (
        ("one", "a\\n  court", "a court"),
        ("two", "\\u0007", "unnamed"),
        ("three", "x" * 900, "x" * 200),
    ):
        filed = filing(tmp_path / name, ORDERS, f'order.0.issuer = "{issuer}"')
        assert filed.run().holds
        assert filed.clerk._expected["everything"].issuer == wanted


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("jurisdiction.1.code = 'PK'", "jurisdiction.code: 'PK' is there twice"),
        ("jurisdiction.1.code = 'pk'", "jurisdiction"),
        ("order.2.sealed = false", "what is opened was sealed"),
        ("order.2.opened = 2015-11-04", "what is opened was sealed"),
        ("order.0.extension = [{ on = 2015-11-10, deadline = 2015-11-20 }]", "ends no later"),
        ("order.0.extension = [{ on = 2015-11-21, deadline = 2015-11-21 }]", "ends no later"),
        ("order.0.person = 'p0@acme.example'", "is about everybody"),
        ("jurisdiction.0.answers = { block = 'leave', localise = 'refuse' }", "one kind to the relay"),
    ],
)
def test_what_no_docket_takes_is_refused_in_the_scenario(change: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        from_toml(ORDERS, [change])


def test_jurisdictions_without_a_code_get_codes_of_no_country_each_another() -> None:
    more = "".join(f'[[jurisdiction]]\nname = "land {number}"\n' for number in range(24))
    codes = list(from_toml(ORDERS + more).codes.values())
    assert codes[:3] == ["PK", "XX", "XA"]
    assert len(set(codes)) == len(codes) == 26
    assert "XK" not in codes
    assert from_toml(ORDERS, ["jurisdiction.0.code = 'XX'"]).codes == {"Pakistan": "XX", "Canada": "XA"}
    with pytest.raises(ScenarioError, match="name some"):
        from_toml(ORDERS + more + '[[jurisdiction]]\nname = "one more"\n')
