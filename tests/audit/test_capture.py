"""The verifier reads a capture by itself: an honest one is BLIND, and each lie about what passed is found."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from audit.__main__ import main
from audit.capture_audit import CaptureReport, audit_capture
from audit.material import HistoricalKey, Material, Opening, Secret, read_card
from audit.verdict import Verdict
from relay.core.answers import Captured, Facts, answer_to
from relay.core.docket import Order, OrderKind, Scope, ScopeKind
from relay.core.policy import Decision
from relay.home import CARD_NAME, Home, init
from relay.logkey import LOG_FOLDER
from relay.orders import Desk
from sim.historical import GLOBAL_PIN_KEY, PIN_SUITE, PinMessage, write_message
from wire.capture import (
    CaptureBegan,
    CaptureCovered,
    CapturedEvent,
    CaptureEnded,
    CaptureHeader,
    CaptureLost,
    CaptureRecord,
    framed,
)

NOW_S = 1_448_841_600
UNTIL_S = NOW_S + 9
NOW_MS = NOW_S * 1_000
ANA, BOB, BOX = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 16
TEXT = b"see you at nine at the usual place"
Records = list[CaptureRecord]


def body(seed: int) -> bytes:
    return random.Random(seed).randbytes(400)  # ciphertext as the audit sees it: even, and another each time


class Bench:
    """A relay's home and log, and a file of what passed."""

    def __init__(self, folder: Path) -> None:
        self.home: Home = init(folder / "relay", secrets.token_bytes, listen="127.0.0.1:18837")
        self.path = folder / "capture"
        self.kind = OrderKind.INTERCEPTION

    def records(self, kind: OrderKind = OrderKind.INTERCEPTION) -> Records:
        self.kind = kind
        has = kind is OrderKind.INTERCEPTION
        passing = [(1, (ANA,), 1), (2, (BOB,), 1), (3, (BOB,), 1), (1, (ANA,), 2), (5, (), 2)]
        events = [
            CapturedEvent(NOW_MS + seq, seq, event, who, BOX, number, 400, body(number) if has and event < 3 else b"")
            for seq, (event, who, number) in enumerate(passing)
        ]
        return [
            CaptureHeader(self.home.card.relay_id, 0, kind.value, "account", NOW_MS),
            CaptureBegan(NOW_MS, UNTIL_S),
            CaptureCovered(NOW_MS, BOX, BOB),
            *events[:3],
            CaptureEnded(NOW_MS + 5, "paused"),
            CaptureBegan(NOW_MS + 7, UNTIL_S),
            CaptureCovered(NOW_MS + 7, BOX, BOB),
            *(replace(event, seq=event.seq - 3, time_ms=NOW_MS + 8) for event in events[3:]),
            CaptureLost(NOW_MS + 9, 4),
            CaptureEnded(UNTIL_S * 1_000, "until"),
        ]

    def write(self, records: Records) -> bytes:
        data = b"".join(map(framed, records))
        self.path.write_bytes(data)
        return data

    def log(self, evidence: bytes, *, secret_s: int = 0, capturing: bool = True) -> None:
        order = Order(
            kind=self.kind,
            issuer="A court",
            jurisdiction="GB",
            legal_basis="IPA 2016",
            received_s=NOW_S,
            scope=Scope(ScopeKind.ACCOUNT, "bob@acme.example"),
            secret_until_s=secret_s,
        )
        facts = Facts(found=1, evidence=evidence, captured=Captured(events=5))
        with Desk.at(self.home.path, lambda: NOW_S, os.urandom) as desk:
            desk.receive(order)
            if capturing:
                desk.capture(0, UNTIL_S)
        if evidence:
            with Desk.at(self.home.path, lambda: UNTIL_S, os.urandom) as desk:
                desk.answer(0, answer_to(order, Decision.HONOUR, facts), Decision.HONOUR)

    def audit(self, material: Material | None = None) -> CaptureReport:
        card = read_card((self.home.path / CARD_NAME).read_bytes(), "card")
        return audit_capture(self.path, material or Material(), card, self.home.path / LOG_FOLDER)

    def honest_log(self, records: Records) -> CaptureReport:
        """What is found where the log names the hash of this very file: of the file alone."""
        self.log(sha256(self.write(records)).digest())
        return self.audit()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("kind", [OrderKind.INTERCEPTION, OrderKind.PEN_REGISTER])
def test_an_honest_capture_is_blind_and_tells_what_it_tells(bench: Bench, kind: OrderKind) -> None:
    report = bench.honest_log(bench.records(kind))
    assert report.verdict is Verdict.BLIND
    assert report.found.classes.total() == bench.path.stat().st_size
    assert report.found.lost == 4
    told = report.text()
    assert told.startswith("BLIND: ")
    assert f"by {ANA.hex()[:16]}…: 2" in told
    assert '"verdict": "BLIND"' in report.json()


def test_without_card_and_log_and_while_it_goes_on_it_is_incomplete(bench: Bench) -> None:
    records = bench.records()
    bench.write(records)
    assert audit_capture(bench.path, Material()).verdict is Verdict.INCOMPLETE
    bench.log(b"")
    assert bench.audit().verdict is Verdict.INCOMPLETE
    bench.write(records[:-1])
    report = bench.audit()
    assert any("cut off, or is still being written" in text for text in report.outcomes[0].missing)


def test_of_a_sealed_order_it_waits_for_the_opening(bench: Bench) -> None:
    bench.records()
    bench.log(sha256(bench.write(bench.records())).digest(), secret_s=UNTIL_S + 9)
    assert bench.audit().verdict is Verdict.INCOMPLETE
    with Desk.at(bench.home.path, lambda: UNTIL_S + 9, os.urandom) as desk:
        desk.open_sealed(0)
    assert bench.audit().verdict is Verdict.BLIND


def bent(index: int, **fields: object) -> Callable[[Records], Records]:
    return lambda records: [
        replace(record, **fields) if place == index else record for place, record in enumerate(records)
    ]


def test_a_clock_that_is_set_back_between_parts_is_no_finding(bench: Bench) -> None:
    records = bench.records()
    later = records.index(CaptureBegan(NOW_MS + 7, UNTIL_S))
    records = bent(later, time_ms=NOW_MS - 9)(bent(later + 1, time_ms=NOW_MS - 9)(records))
    assert bench.honest_log(records).verdict is Verdict.BLIND


ATTACKS: dict[str, tuple[Callable[[Records], Records], str]] = {
    "a plaintext body": (bent(3, body=(TEXT * 20)[:400]), "capture.bodies"),
    "a body of no envelope's size": (bent(3, body=body(1)[:399], body_bytes=399), "capture.bodies"),
    "a body cut short": (bent(3, body=body(1)[:300]), "capture.bodies"),
    "another body for the same envelope": (bent(4, body=body(9)), "capture.bodies"),
    "a key used for two envelopes": (bent(9, body=body(1)), "capture.bodies"),
    "a record taken out": (lambda records: records[:4] + records[5:], "capture.records"),
    "a record twice": (lambda records: records[:5] + records[4:], "capture.records"),
    "a mailbox that is not covered": (lambda records: records[:2] + records[3:], "capture.records"),
    "events after the end": (lambda records: records[:7] + records[9:], "capture.records"),
    "two headers": (lambda records: records[:1] + records, "capture.records"),
    "no header": (lambda records: records[1:], "capture.records"),
    "times that fall": (bent(4, time_ms=NOW_MS - 1), "capture.records"),
    "an expiry by a device": (bent(10, devices=(ANA,)), "capture.records"),
    "another relay": (bent(0, relay_id=bytes(16)), "capture.answer"),
    "another kind": (bent(0, kind="pen-register"), "capture.answer"),
    "before the log said so": (bent(1, time_ms=NOW_MS - 9_000), "capture.answer"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_a_file_that_is_not_what_it_says_is_found(bench: Bench, name: str) -> None:
    change, check = ATTACKS[name]
    report = bench.honest_log(change(bench.records()))
    assert report.verdict is Verdict.NOT_BLIND
    assert check in report.failed


def test_attack_a_pen_register_that_carries_bodies_is_found(bench: Bench) -> None:
    records = bent(3, body=body(1))(bench.records(OrderKind.PEN_REGISTER))
    assert bench.honest_log(records).failed == ("capture.bodies",)


@pytest.mark.parametrize("bytes_left", [-1, -100, 40, 3])
def test_attack_a_file_that_was_cut_is_found(bench: Bench, bytes_left: int) -> None:
    data = bench.write(bench.records())
    bench.log(sha256(data).digest())
    bench.path.write_bytes(data[:bytes_left])
    report = bench.audit()
    assert "capture.records" in report.failed
    assert "capture.answer" in report.failed or not report.found.kind


def test_attack_a_file_that_was_changed_since_is_found_by_its_hash(bench: Bench) -> None:
    records = bench.records()
    bench.log(sha256(bench.write(records)).digest())
    bench.write(bent(9, body=body(77))(records))
    assert bench.audit().failed == ("capture.answer",)
    bench.write([*records[:7], records[-1]])
    assert "capture.answer" in bench.audit().failed


def test_attack_a_capture_of_which_the_log_says_nothing_is_found(bench: Bench) -> None:
    data = bench.write(bench.records())
    with Desk.at(bench.home.path, lambda: NOW_S, os.urandom):
        assert sha256(data).digest()
    assert "capture.answer" in bench.audit().failed
    bench.log(b"", capturing=False)
    assert "capture.answer" in bench.audit().failed


def test_attack_readable_words_and_secrets_within_are_found_and_not_told(bench: Bench) -> None:
    secret = bytes(range(100, 132))
    spoilt = body(1)[:100] + TEXT + secret + body(1)[100 + len(TEXT) + len(secret) :]
    records = bent(4, body=spoilt)(bent(3, body=spoilt)(bench.records()))
    bench.log(sha256(bench.write(records)).digest())
    material = Material(openings=[Opening("ana", bytes(32), TEXT)], secrets=[Secret("ana", "key", secret)])
    report = bench.audit(material)
    assert report.failed == ("search.canaries", "search.secrets")
    assert secret.hex() not in report.text()
    bench.write(bench.records())
    assert "search.canaries" not in bench.audit(material).failed


def test_attack_bodies_under_a_key_that_everybody_has_are_read_by_whoever_volunteers_it(bench: Bench) -> None:
    message = PinMessage(bytes(16), 1, bytes(16), 0, bytes(16), ("ana@acme.example",), TEXT)
    readable = write_message(message, random.Random(3).randbytes)
    records = bench.records()
    for index in (3, 4):
        records = bent(index, body=readable, body_bytes=len(readable))(records)
    records = bent(5, body_bytes=len(readable))(records)
    bench.log(sha256(bench.write(records)).digest())
    assert bench.audit().verdict is Verdict.BLIND
    key = HistoricalKey("bob", PIN_SUITE, GLOBAL_PIN_KEY)
    report = bench.audit(Material(historical_keys=[key]))
    assert (report.failed, report.read) == (("capture.keys",), 1)
    assert "a key of suite 0x5049 from bob opens 1 of 2 envelopes" in report.text()
    assert GLOBAL_PIN_KEY.hex() not in report.text()
    other = HistoricalKey("bob", PIN_SUITE, bytes(range(24)))
    assert bench.audit(Material(historical_keys=[other])).verdict is Verdict.BLIND
    unknown = HistoricalKey("bob", PIN_SUITE, bytes(range(23)))
    assert bench.audit(Material(historical_keys=[unknown])).verdict is Verdict.INCOMPLETE


@pytest.mark.parametrize("body_bytes", [1, 100, 130, 399])
def test_hostile_bodies_too_short_for_any_key_are_a_finding_and_never_a_crash(bench: Bench, body_bytes: int) -> None:
    records = bent(3, body=body(1)[:body_bytes], body_bytes=body_bytes)(bench.records())
    bench.log(sha256(bench.write(records)).digest())
    keys = [HistoricalKey("bob", suite, bytes(range(size))) for suite, size in ((PIN_SUITE, 24), (0x454E, 32))]
    assert "capture.bodies" in bench.audit(Material(historical_keys=keys)).failed


@pytest.mark.parametrize("seed", range(20))
def test_hostile_bytes_are_a_finding_and_never_a_crash(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)  # hostile bytes that can be had again
    data = bytearray(bench.write(bench.records()))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    bench.path.write_bytes(data if seed % 2 else rng.randbytes(300))
    report = audit_capture(bench.path, Material())
    assert report.found.classes.total() == bench.path.stat().st_size
    assert report.verdict is not Verdict.BLIND


def test_the_command_ends_with_the_verdict(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.honest_log(bench.records())
    card, log = str(bench.home.path / CARD_NAME), str(bench.home.path / LOG_FOLDER)
    assert main(["--capture", str(bench.path), "--relay-card", card, "--log", log]) == 0
    assert capsys.readouterr().out.endswith("exit status 0\n")
    assert main(["--capture", str(bench.path), "--json"]) == 2
    assert main(["--capture", str(bench.path) + "x"]) == 64
    for words in ([], ["dir", "--capture", "x"], ["dir", "--log", log], ["--capture", "x", "--html", "y"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 64
