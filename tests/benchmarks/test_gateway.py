"""`benchmarks gateway`: a small run counts what it should, and one that lost or doubled a chat has no figures."""

from pathlib import Path

import pytest

from benchmarks import gateway
from benchmarks.gateway_people import Chatter, Totals
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.report import Report
from client.content import Kind, decode_content
from wire.card import RelayCard
from wire.signing import SigningKey


@pytest.mark.parametrize("broker", ["amqtt", pytest.param("nats", marks=pytest.mark.nats_server)])
def test_a_small_run_has_a_receipt_for_every_chat_and_decrypts_them_all(tmp_path: Path, broker: str) -> None:
    arguments = ["--brokers", broker, "--rounds", "1", "--devices", "3", "--chats", "30", "--submit", "4"]
    assert gateway.main([*arguments, "--out", str(tmp_path)]) == 0
    report = Report.read(tmp_path / "gateway.json")
    (case,) = report.cases
    assert case.dimensions["devices"] == 3
    figures = {name: metric.rounds for name, metric in case.metrics.items()}
    assert all(rounds[0] > 0 for rounds in figures.values())
    assert 0 < figures["ratchet's share of the CPU"][0] < 100
    assert (tmp_path / "gateway.svg").stat().st_size > 0


def a_pair() -> tuple[Chatter, Chatter]:
    totals = Totals(RelayCard(SigningKey(bytes(32)).public, "mqtt://127.0.0.1:1"))
    one, two = Chatter(1, totals, b"salam"), Chatter(2, totals, b"salam")
    one.talk_to(two)
    return one, two


def test_a_chat_is_what_a_device_would_send_and_its_token_names_the_envelope() -> None:
    one, two = a_pair()
    envelope = one._envelope()
    assert envelope.mailbox == two.keys.mailbox
    assert b"salam" not in envelope.body
    assert two._in is not None
    content = decode_content(two._in.decrypt(envelope.body, envelope.envelope_id, 0))
    assert (content.kind, content.payload, content.envelope_id) == (Kind.CHAT, b"salam", envelope.envelope_id)


def test_a_lost_chat_fails_the_run() -> None:
    one, two = a_pair()
    kept, _lost = one._envelope(), one._envelope()
    two._open(kept.envelope_id, kept.body)
    with pytest.raises(LostOrDoubled, match="heard 1 of 2 chats"):
        two.check()


def test_a_doubled_chat_fails_the_run() -> None:
    one, two = a_pair()
    envelope = one._envelope()
    two._open(envelope.envelope_id, envelope.body)
    two.heard.update(one.sent)
    again = one._envelope()
    two.heard.update(one.sent)
    with pytest.raises(LostOrDoubled, match="was given a chat twice"):
        two._open(again.envelope_id, again.body)
