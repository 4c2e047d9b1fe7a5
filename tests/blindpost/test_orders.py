"""The commands of docket, log and report, at a relay that does not run."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from audit.order_log import LoggedOrder
from audit.order_report import AGGREGATOR_COLUMNS, GITHUB_COLUMNS, aggregator_csv, github_csv
from blindpost.__main__ import main
from blindpost.exit_status import ExitStatus

DAY_S = 86_400
PERSON = ("--account", "omar@karachi.example")


def day_in(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY_S))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert main(["relay", "init", "--home", str(tmp_path / "relay")]) == 0
    return tmp_path / "relay"


def run(home: Path, *words: str, status: int = 0) -> None:
    assert main([*words, "--home", str(home)]) == status


def verify(home: Path, *words: str) -> int:
    return main(["log", "verify", str(home / "transparency"), "--relay-card", str(home / "relay-card.toml"), *words])


@pytest.mark.parametrize(
    ("words", "outcome", "state"),
    [
        (("content", *PERSON), "nothing-held", "honoured"),
        (("subscriber", *PERSON), "nothing-held", "honoured"),
        (("metadata", *PERSON), "nothing-held", "honoured"),
        (("preservation", *PERSON, "--until", day_in(30)), "nothing-held", "honoured"),
        (("keys",), "refused", "refused"),
        (("decrypt",), "refused", "refused"),
        (("weakness",), "refused", "refused"),
        (("ghost", *PERSON), "refused", "refused"),
        (("leave",), "given", "honoured"),
        (("secrecy", "--secret-until", day_in(30)), "given", "honoured"),
        (("secrecy", "--secret-until", day_in(30), "--jurisdiction", "QQ"), "refused", "refused"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_kind_is_answered_and_logged(
    home: Path, words: tuple[str, ...], outcome: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "policy.toml").write_text("[QQ]\nsecrecy_is_lawful = false\n")
    run(home, "order", *words)
    told = capsys.readouterr().out
    assert f"answer: {outcome}; leaf 2 of 3" in told
    assert f"order 0: {state}; leaf 1" in told
    assert "Not claimed: " in told
    assert verify(home) == 0


@pytest.mark.parametrize("words", [("interception",), ("pen-register", *PERSON)])
def test_what_is_contested_is_not_answered_yet(
    home: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run(home, "order", *words)
    assert "contested" in capsys.readouterr().out
    run(home, "order", "show", "0")
    assert "not answered yet" in capsys.readouterr().out
    run(home, "order", "decide", "0", "--refuse")
    assert "order 0: refused; leaf 1" in capsys.readouterr().out
    run(home, "order", "decide", "0", "--honour", status=ExitStatus.UNAVAILABLE)
    assert verify(home) == 0


def test_the_docket_is_listed_and_changes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(home, "order", "list")
    assert "no order" in capsys.readouterr().out
    run(home, "order", "keys", "--deadline", day_in(10), "--jurisdiction", "GB")
    run(home, "order", "extend", "0", "--deadline", day_in(20))
    run(home, "order", "withdraw", "0")
    capsys.readouterr()
    run(home, "order", "list")
    assert "GB" in (told := capsys.readouterr().out)
    assert told.rstrip().endswith("withdrawn")
    run(home, "order", "withdraw", "0", status=ExitStatus.UNAVAILABLE)
    run(home, "order", "show", "7", status=ExitStatus.UNAVAILABLE)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("preservation", *PERSON, "--until", day_in(-1)), ExitStatus.USAGE),
        (("preservation", *PERSON, "--until", day_in(200)), ExitStatus.USAGE),
        (("keys", "--jurisdiction", "United Kingdom"), ExitStatus.DATA),
        (("keys", "--deadline", "tomorrow"), ExitStatus.USAGE),
        (("secrecy",), ExitStatus.USAGE),
        (("ghost",), ExitStatus.USAGE),
        (("subscriber", "--mailbox", "xyz"), ExitStatus.DATA),
    ],
)
def test_an_order_that_is_none_is_refused_and_not_logged(home: Path, words: tuple[str, ...], status: int) -> None:
    run(home, "order", *words, status=status)
    assert not list((home / "orders").glob("*")) if (home / "orders").exists() else True
    assert (home / "transparency" / "tile" / "entries" / "000.p" / "1").is_file()
    assert not (home / "transparency" / "tile" / "entries" / "000.p" / "2").exists()


def test_a_report_follows_from_the_log_and_is_caught_when_it_does_not(home: Path, tmp_path: Path) -> None:
    run(home, "order", "keys", "--issuer", "=cmd|' /C calc'!A0")
    run(home, "order", "decrypt", "--secret-until", day_in(9))
    out = tmp_path / "report"
    period = ("--from", day_in(-1), "--to", day_in(1), "--out", str(out))
    run(home, "transparency-report", *period)
    run(home, "transparency-report", *period, status=ExitStatus.CANNOT_CREATE)
    rows = list(csv.DictReader((out / "requests.csv").read_text().splitlines()))
    assert [row["request_type"] for row in rows] == ["sealed", "keys"]
    assert rows[1]["agency"].startswith("'=")
    assert "<script" not in (page := (out / "report.html").read_text())
    assert "sealed until" in page
    assert verify(home, "--report", str(out)) == 0
    run(home, "order", "weakness")
    assert verify(home, "--report", str(out)) == 0
    for name, old, new in (
        ("report.html", "2 orders", "1 orders"),
        ("github.csv", ",1,0", ",0,0"),
        ("period.toml", 'root = "', 'root = "00'),
    ):
        text = (out / name).read_text()
        (out / name).write_text(text.replace(old, new, 1))
        assert verify(home, "--report", str(out)) == 1
        (out / name).write_text(text)
    for bad in ("", "size = 1", 'size = -1\nroot = ""\nfrom = 1\nto = 1'):
        (out / "period.toml").write_text(bad)
        assert verify(home, "--report", str(out)) == ExitStatus.DATA


def test_a_report_of_no_orders_has_only_its_columns(home: Path, tmp_path: Path) -> None:
    run(home, "transparency-report", "--from", "2015-01-01", "--to", "2015-12-31", "--out", str(tmp_path / "report"))
    assert (tmp_path / "report" / "github.csv").read_text() == ",".join(GITHUB_COLUMNS) + "\n"
    words = ("--from", "2015-12-31", "--to", "2015-01-01", "--out", str(tmp_path / "r"))
    run(home, "transparency-report", *words, status=64)


def test_orders_are_counted_as_the_two_tables_want() -> None:
    def order(kind: str, outcome: str, evidence: bytes, logged_at: int, scope: str = "account") -> LoggedOrder:
        found = LoggedOrder(0, 1, logged_at, sealed=False, secret_until=0, kind=kind, issuer="A court", scope=scope)
        found.jurisdiction, found.outcome, found.evidence = "CA", outcome, evidence
        return found

    given = order("subscriber", "given", b"\1" * 32, 1_448_841_600)
    nothing = order("subscriber", "nothing-held", bytes(32), 1_448_841_601)
    orders = [given, nothing, order("wholesale", "ciphertext", b"\1" * 32, 1_483_228_800, "all")]
    assert github_csv(orders).decode().splitlines()[1:] == ["2015,subscriber,2,1", "2017,wholesale,1,1"]
    rows = list(csv.DictReader(aggregator_csv(orders, "log", 0, DAY_S).decode().splitlines()))
    assert tuple(rows[0]) == AGGREGATOR_COLUMNS
    assert [(row["reason"], row["num_accounts_complied"]) for row in rows] == [
        ("given", "1"),
        ("nothing-held", "0"),
        ("ciphertext", "0"),
    ]


def test_the_log_is_proven_mirrored_and_compared(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(home, "order", "keys")
    run(home, "log", "mirror", "--out", str(tmp_path / "mirror"))
    run(home, "log", "prove", "1", "--out", str(tmp_path / "proof"))
    run(home, "order", "decrypt")
    assert (
        verify(home, "--checkpoint", str(tmp_path / "mirror" / "checkpoint"), "--proof", str(tmp_path / "proof")) == 0
    )
    (tmp_path / "proof").write_text((tmp_path / "proof").read_text().replace("index 1", "index 2"))
    assert verify(home, "--proof", str(tmp_path / "proof")) == 1
    capsys.readouterr()
    run(home, "log", "prove", "--from", "3")
    assert capsys.readouterr().out.startswith("consistency 3 5\n")
    run(home, "log", "prove", status=64)
    run(home, "log", "prove", "9", status=65)
    run(home, "log", "mirror", "--out", str(tmp_path / "mirror"))
    assert "2 leaves" not in capsys.readouterr().out
    missing = ["log", "verify", str(tmp_path / "none"), "--relay-card", str(home / "relay-card.toml")]
    assert main(missing) == ExitStatus.NO_INPUT
    (tmp_path / "card").write_text("no card")
    assert main([*missing[:2], str(home / "transparency"), "--relay-card", str(tmp_path / "card")]) == ExitStatus.DATA


def test_a_person_who_is_not_there_has_no_data(home: Path) -> None:
    run(home, "mydata", *PERSON, status=69)
