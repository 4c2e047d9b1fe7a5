"""What orders and announcements do to the service of a jurisdiction: the record of 2015, and what would have been."""

import pytest

from sim.orders.policy import Answer, answer_to, discloses
from sim.orders.service import exit_steps, happenings, service_changes, state_on
from sim.scenario.base import Moment, ScenarioError
from sim.scenario.scenario import Scenario, from_toml

PAKISTAN = """
name = "pakistan"
start = 2015-07-20
days = 180

[[jurisdiction]]
name = "Pakistan"
policy = "leave-rather"
enforcement = "block"
drain_days = 3

[[jurisdiction]]
name = "Canada"

[[tenant]]
domain = "karachi.example"
jurisdiction = "Pakistan"
people = 2

[[order]]
id = "carriers"
date = 2015-07-24
kind = "block"
jurisdiction = "Pakistan"
issuer = "the regulator"
deadline = 2015-11-30
withdrawn = 2015-12-31

[[order.extension]]
on = 2015-11-30
deadline = 2015-12-30

[[assert]]
check = "sent-at-least"
messages = 1
"""


def states(scenario: Scenario) -> list[tuple[str, str]]:
    return [(str(Moment(change.at_s)), change.state) for change in service_changes(scenario)]


def test_leaving_on_the_extended_day_unless_the_order_is_withdrawn_before() -> None:
    assert states(from_toml(PAKISTAN)) == [
        ("2015-11-27", "ending"),
        ("2015-11-30", "served"),
        ("2015-12-27", "ending"),
        ("2015-12-30", "ended"),
    ]
    in_time = from_toml(PAKISTAN, ["order.0.withdrawn = 2015-12-29"])
    assert states(in_time)[-1] == ("2015-12-29", "served")


def test_an_exit_that_is_refused_ends_in_a_block_until_the_order_is_withdrawn() -> None:
    stay = from_toml(PAKISTAN, ["jurisdiction.0.policy = 'lawful-access'"])
    assert states(stay) == [("2015-12-30", "blocked"), ("2015-12-31", "served")]
    assert states(from_toml(PAKISTAN, ["jurisdiction.0.policy = 'comply'"])) == [
        ("2015-12-30", "blocked"),
        ("2015-12-31", "served"),
    ]
    assert not states(
        from_toml(PAKISTAN, ["jurisdiction.0.policy = 'lawful-access'", "jurisdiction.0.enforcement = 'none'"])
    )


def said(scenario: Scenario) -> list[tuple[str, str, str]]:
    return [(str(Moment(one.at_s)), one.step, str(Moment(one.ends_s))) for one in exit_steps(scenario)]


def test_each_step_of_leaving_is_said_on_its_day() -> None:
    assert said(from_toml(PAKISTAN)) == [
        ("2015-07-24", "announced", "2015-11-30"),
        ("2015-11-30", "extended", "2015-12-30"),
        ("2015-12-30", "completed", "2015-12-30"),
    ]
    assert said(from_toml(PAKISTAN, ["order.0.withdrawn = 2015-12-29"]))[-1] == (
        "2015-12-29",
        "cancelled",
        "2015-12-30",
    )
    assert said(from_toml(PAKISTAN, ["jurisdiction.0.policy = 'lawful-access'"])) == []


def test_an_earlier_day_of_leaving_is_another_exit() -> None:
    more = "jurisdiction = 'Canada', by = 'the company', says = 'out'"
    one = f"{{ date = 2015-08-01, {more}, effect = 'exit', on = 2015-10-01 }}"
    two = f"{{ date = 2015-08-15, {more}, effect = 'exit-moved', on = 2015-09-01 }}"
    back = f"{{ date = 2015-09-10, {more}, effect = 'stay' }}"
    again = f"{{ date = 2015-09-11, {more}, effect = 'exit', on = 2015-11-01 }}"
    assert said(from_toml(PAKISTAN, [f"announcement = [{one}, {two}, {back}, {again}]", "order = []"])) == [
        ("2015-08-01", "announced", "2015-10-01"),
        ("2015-08-15", "cancelled", "2015-10-01"),
        ("2015-08-15", "announced", "2015-09-01"),
        ("2015-09-01", "completed", "2015-09-01"),
    ]


def test_to_localise_by_obeying_is_to_leave_as_the_relay_says() -> None:
    obeys = from_toml(PAKISTAN, ["order.0.kind = 'localise'", "jurisdiction.0.policy = 'comply'"])
    assert answer_to(obeys.order[0], obeys.jurisdiction[0]) is Answer.PROVIDED
    assert [step for _at, step, _day in said(obeys)] == ["announced", "extended", "completed"]
    assert states(obeys)[-1] == ("2015-12-30", "ended")


def test_announcements_end_move_and_keep_a_service() -> None:
    said = "by = 'the company', jurisdiction = 'Canada'"
    one = f"{{ date = 2015-08-01, says = 'out', {said}, effect = 'exit', on = 2015-09-01 }}"
    two = f"{{ date = 2015-08-15, says = 'later', {said}, effect = 'exit-moved', on = 2015-10-01 }}"
    three = f"{{ date = 2015-10-10, says = 'back', {said}, effect = 'stay' }}"
    four = f"{{ date = 2015-10-11, says = 'as before', {said} }}"
    scenario = from_toml(PAKISTAN, [f"announcement = [{one}, {two}, {three}, {four}]", "order = []"])
    assert states(scenario) == [("2015-09-29", "ending"), ("2015-10-01", "ended"), ("2015-10-10", "served")]
    changes = service_changes(scenario)
    assert state_on(changes, "Canada", Moment(1443744000).unix_s) == "ended"
    assert state_on(changes, "Pakistan", Moment(1443744000).unix_s) == "served"
    kinds = [happening.what for happening in happenings(scenario)]
    assert kinds.count("announcement") == 4
    assert kinds.count("service") == 3
    assert kinds.count("exit") == 3


@pytest.mark.parametrize(
    ("policy", "kind", "answer"),
    [
        ("lawful-access", "subscriber-record", Answer.PROVIDED),
        ("lawful-access", "wholesale-content", Answer.REFUSED),
        ("lawful-access", "block", Answer.NOT_OURS),
        ("leave-rather", "wholesale-content", Answer.LEAVING),
        ("leave-rather", "seizure", Answer.PROVIDED),
        ("comply", "ghost-device", Answer.PROVIDED),
        ("comply", "block", Answer.NOT_OURS),
        ("comply", "decryption-capability", Answer.REFUSED),
        ("refuse-all", "subscriber-record", Answer.REFUSED),
        ("refuse-all", "block", Answer.REFUSED),
    ],
)
def test_policies(policy: str, kind: str, answer: Answer) -> None:
    scenario = from_toml(PAKISTAN, [f"jurisdiction.0.policy = '{policy}'", f"order.0.kind = '{kind}'"])
    assert answer_to(scenario.order[0], scenario.jurisdiction[0]) is answer


def test_a_single_kind_may_have_another_course_and_a_disclosure_of_its_own() -> None:
    scenario = from_toml(PAKISTAN, ["jurisdiction.0.answers = { block = 'appeal' }", "order.0.disclose = true"])
    assert answer_to(scenario.order[0], scenario.jurisdiction[0]) is Answer.APPEALED
    assert discloses(scenario.order[0])
    assert not discloses(from_toml(PAKISTAN).order[0])


def test_an_order_outside_the_run_is_refused() -> None:
    with pytest.raises(ScenarioError, match="is not between"):
        from_toml(PAKISTAN, ["order.0.date = 2017-01-01"])
