"""The format: what is refused, and in which words; moments; changes of one line; scaling."""

import re
from pathlib import Path

import msgspec
import pytest

from sim.scenario.base import Moment, Part, ScenarioError
from sim.scenario.scenario import Scenario, from_toml, load, scaled
from tests.sim.scenario.samples import SMALL

DOCS = Path(__file__).parents[3] / "docs" / "scenarios.md"


def test_a_scenario_is_read_with_its_defaults() -> None:
    scenario = from_toml(SMALL)
    assert scenario.crypto == "sized"
    assert str(scenario.end) == "2015-11-03"
    assert scenario.people_count == 10
    assert scenario.jurisdiction_of("Canada").policy == "lawful-access"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("people.contcts = 3", "people: Object contains unknown field `contcts`"),
        ("traffic.hours = [1]", "traffic.hours: Expected `array` of length >= 24"),
        ("start = 'soon'", "start: Expected a date"),
        ("network.loss = 2.0", "network.loss: Expected `float` <= 0.9"),
        ("crypto = 'none'", "crypto: Invalid enum value 'none'"),
        ("tenant.0.jurisdiction = 'Atlantis'", "tenant.jurisdiction: 'Atlantis' is not one of Canada, Pakistan"),
        ("tenant.1.domain = 'karachi.example'", "tenant.domain: 'karachi.example' is there twice"),
        ("tenant.1.domain = 'No Domain'", "tenant.domain: "),
        ("tenant.0.abroad = { Canada = 0.7, Pakistan = 0.7 }", "tenant.abroad: has shares of more than 1"),
        ("jurisdiction.0.answers = { theft = 'honour' }", "jurisdiction.answers: 'theft' is no kind of order"),
        ("fault = [{ kind = 'crash' }]", "fault: needs `at` or `per_day`"),
        ("fault = [{ kind = 'crash', at = [2016-01-01] }]", "fault.at: 2016-01-01 is not between"),
        ("fault = [{ kind = 'flood', per_day = 1 }]", "Invalid value 'flood'"),
        ("traffic.hours = " + str([0.0] * 24), "traffic.hours: has no weight above 0"),
        ("assert.0.check = 'all-is-well'", "assert[0].check: Invalid value 'all-is-well'"),
        ("assert = []", "assert: Expected `array` of length >= 1"),
        ("assert = [{ check = 'verdict', order = 'none', is = 'BLIND' }]", "assert.order: 'none' is not one of"),
        ("nothing", "change: 'nothing' is not KEY = VALUE"),
        ("tenant.7.people = 3", "there is no '7'"),
        ("days = [", "change days: is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(change: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(words)):
        from_toml(SMALL, [change])


ORDER = "id = 'all', date = 2015-11-02, kind = 'wholesale-content', jurisdiction = 'Pakistan', issuer = 'it'"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("deadline = 2015-11-01", "lies before its date"),
        ("extension = [{ on = 2015-11-02, deadline = 2015-11-03 }]", "there is no deadline to extend"),
        ("person = 'p0@elsewhere.example'", "order all: person: 'elsewhere.example' is not one of"),
        ("person = 'nobody'", "order all: person: "),
    ],
)
def test_an_order_that_contradicts_itself_is_refused(more: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(words)):
        from_toml(SMALL, [f"order = [{{ {ORDER}, {more} }}]"])


def test_an_announcement_with_an_effect_needs_a_place_and_a_day() -> None:
    said = "date = 2015-11-02, by = 'the company', says = 'it leaves', effect = 'exit'"
    with pytest.raises(ScenarioError, match=r"announcement\.jurisdiction"):
        from_toml(SMALL, [f"announcement = [{{ {said} }}]"])
    with pytest.raises(ScenarioError, match=r"announcement\.on"):
        from_toml(SMALL, [f"announcement = [{{ {said}, jurisdiction = 'Pakistan' }}]"])


def test_moments_are_utc_unless_they_name_an_offset() -> None:
    assert from_toml(SMALL, ["start = 2015-11-02T06:00:00"]).start == Moment(1446444000)
    assert from_toml(SMALL, ["start = 2015-11-02T11:00:00+05:00"]).start == Moment(1446444000)
    assert str(Moment(1446444000)) == "2015-11-02 06:00:00"


def test_a_file_is_read_and_one_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text(SMALL)
    assert load(tmp_path / "one.toml") == from_toml(SMALL)
    (tmp_path / "two.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="is not UTF-8"):
        load(tmp_path / "two.toml")
    (tmp_path / "three.toml").write_bytes(b"#" * 1_048_577)
    with pytest.raises(ScenarioError, match="has more than"):
        load(tmp_path / "three.toml")


def test_scaling_keeps_companies_in_proportion_and_none_empty() -> None:
    assert [tenant.people for tenant in scaled(from_toml(SMALL), 100).tenant] == [50, 50]
    assert [tenant.people for tenant in scaled(from_toml(SMALL), 2).tenant] == [2, 2]


def _parts(kind: type[Part]) -> set[type[Part]]:
    found = {kind}
    for one in kind.__subclasses__():
        found |= _parts(one)
    return found


def test_every_key_and_every_kind_is_in_the_reference() -> None:
    text = DOCS.read_text(encoding="utf-8")
    missing = []
    for part in _parts(Part):
        if part.__name__.startswith("_") or part in (Part, Scenario):
            continue
        config = part.__struct_config__
        if config.tag is not None:
            missing += [] if str(config.tag) in text else [str(config.tag)]
        for field in msgspec.structs.fields(part):
            missing += [] if field.encode_name in text else [f"{part.__name__}.{field.encode_name}"]
    missing += [f.encode_name for f in msgspec.structs.fields(Scenario) if f"{f.encode_name}" not in text]
    assert missing == []


def test_the_example_of_the_reference_is_a_scenario() -> None:
    text = DOCS.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    assert from_toml(text).name == "a-week"
