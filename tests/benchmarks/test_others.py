"""`store`, `scale`, `audit`, `soak`, `ratchet`: small runs from end to end, and what must fail them."""

import importlib.util
from pathlib import Path

import pytest

from benchmarks import audit, documented, filling, mqtt, reference, scale, soak, store
from benchmarks.__main__ import NAMES, main
from benchmarks.disk import flush_ms
from benchmarks.documented import RESULTS
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.processes import ServerError
from benchmarks.report import Report
from relay.store.sqlite import SqliteStore


def test_stores_take_the_same_commits_and_give_the_bodies_back(tmp_path: Path) -> None:
    assert store.main(["--rounds", "2", "--messages", "200", "--commits", "10", "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "store.json")
    lmdb = importlib.util.find_spec("lmdb") is not None
    assert [case.dimensions["store"] for case in report.cases] == list(store.STORES)[: 3 if lmdb else 2]
    assert [one.name for one in report.skipped] == ([] if lmdb else ["LMDB"])
    assert all(len(case.metrics["committed"].rounds) == 2 for case in report.cases)


def test_store_that_gives_back_another_body_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(SqliteStore, "read", lambda self, seqs: [b"x" for _ in seqs])
    with pytest.raises(AssertionError, match="another body"):
        store.main(["--rounds", "1", "--messages", "20", "--stores", "sqlite", "--out", str(tmp_path)])


def test_scale_measures_beside_what_is_stored(tmp_path: Path) -> None:
    sizes = ["--envelopes", "300", "--mailboxes", "40", "--messages", "50", "--rounds", "1"]
    assert scale.main([*sizes, "--out", str(tmp_path)]) == 0
    cases = Report.read(tmp_path / "scale.json").cases
    assert [case.name for case in cases] == ["300 envelopes", "40 mailboxes"]
    assert all(case.metrics["receipted and delivered"].median > 0 for case in cases)


def test_audit_of_a_filled_store_finds_nothing(tmp_path: Path) -> None:
    assert audit.main(["--envelopes", "50", "--rounds", "1", "--out", str(tmp_path)]) == 0
    (case,) = Report.read(tmp_path / "audit.json").cases
    assert case.metrics["most memory, RSS"].median > 1


def test_audit_with_another_verdict_gives_no_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unsigned(home: Path, mailboxes: int, envelopes: int, body_bytes: int) -> None:
        filling.fill(home, mailboxes, envelopes, body_bytes, signed=False)

    monkeypatch.setattr(audit, "fill", unsigned)
    assert audit.main(["--envelopes", "20", "--rounds", "1", "--out", str(tmp_path / "out")]) == 1
    assert "the verifier ended with status 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_soak_goes_on_in_slices_and_says_what_grows(tmp_path: Path) -> None:
    assert soak.main(["--minutes", "0.01", "--slice-seconds", "0.3", "--rate", "300", "--out", str(tmp_path)]) == 0
    (case,) = Report.read(tmp_path / "soak.json").cases
    assert case.metrics["sent so far"].rounds == [90.0, 180.0]
    assert "memory that a message leaves until its expiry" in case.metrics


def test_ratchet_writes_the_same_form_of_result(tmp_path: Path) -> None:
    assert main(["ratchet", "--rounds", "1", "--messages", "4", "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "ratchet.json")
    assert report.cases[0].name == "blindpost"
    assert report.cases[0].metrics["encrypt"].unit == "µs/message"


@pytest.mark.slow
@pytest.mark.mosquitto
def test_mqtt_answers_every_message_twice_with_and_without_a_relay(tmp_path: Path) -> None:
    sizes = ["--rounds", "1", "--messages", "40", "--senders", "2", "--recipients", "3", "--window", "4"]
    assert mqtt.main([*sizes, "--out", str(tmp_path)]) == 0
    cases = Report.read(tmp_path / "mqtt.json").cases
    assert [case.name for case in cases] == [mqtt.AIOMQTT, mqtt.TRANSPORT, mqtt.RELAY_GATEWAYS, mqtt.RELAY_ALONE]
    assert all(case.metrics["moved"].median > 0 for case in cases)
    # A body of 1,232 bytes travels both ways; a receipt is a signed header and a path.
    dimensions = cases[0].dimensions
    assert 1_232 < int(dimensions["delivery_bytes"]) < int(dimensions["submit_bytes"]) < 1_500
    assert 400 < int(dimensions["receipt_bytes"]) < 600


def test_answers_that_are_lost_doubled_or_misled_fail_the_run() -> None:
    exchange = mqtt._Exchange(2)
    exchange.expect(0, b"sender", b"recipient")
    exchange.expect(1, b"sender", b"recipient")
    first = bytes(16)
    assert exchange.take(first, b"sender") is None
    for topic in (b"sender", b"another"):
        with pytest.raises(LostOrDoubled, match="twice, to another"):
            exchange.take(first, topic)
    assert exchange.take(first, b"recipient") == 0
    with pytest.raises(LostOrDoubled, match="1 of 2 messages were answered"):
        exchange.close()


def test_every_result_can_be_drawn_again_from_its_file(tmp_path: Path) -> None:
    results = sorted(str(path) for path in RESULTS.glob("*.json"))
    assert main(["plot", *results, "--out", str(tmp_path)]) == 0
    for path in results:
        drawn = (tmp_path / Path(path).name).with_suffix(".svg").read_text(encoding="utf-8")
        assert "<rect class=" in drawn
        assert 'class="title"' in drawn, "nothing is drawn"


def test_reference_names_what_it_knows_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reference.main(["--help"])
    told = capsys.readouterr().out
    assert all(f"{part.minutes:g} min   {part.command}" in told for part in reference.PARTS.values())
    with pytest.raises(SystemExit):
        reference.main(["relay", "kafka"])
    assert "'kafka' is none of peers, relay" in capsys.readouterr().err


def test_reference_goes_on_after_a_failed_part_and_keeps_its_old_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(words: list[str]) -> int:
        if words[0] == "store":
            raise ServerError("no disk")
        out = Path(words[words.index("--out") + 1])
        (out / "audit.json").write_text(f'{{"command": "python -m benchmarks audit --out {out}"}}', encoding="ascii")
        return 0

    monkeypatch.setattr(reference, "run", run)
    monkeypatch.setattr(documented, "RESULTS", tmp_path)
    monkeypatch.setattr(documented, "PAGE", tmp_path / "none.md")
    assert reference.main(["store", "audit"]) == 1
    out, errors = capsys.readouterr()
    assert "--- 1 of 2: store" in out
    assert out.endswith("failed: store\n")
    assert errors == "FAILED: ServerError: no disk\n"
    assert (tmp_path / "audit.json").read_text() == '{"command": "python -m benchmarks audit"}'
    assert not (tmp_path / "store.json").exists()


def test_flush_takes_time_and_leaves_nothing(tmp_path: Path) -> None:
    assert all(one > 0 for one in flush_ms(tmp_path, 4_096, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(NAMES))
def test_every_benchmark_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {name}" in capsys.readouterr().out
