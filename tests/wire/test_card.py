"""The relay's card, errors and refusal codes (protocol.md sections 2.7 and 6.5)."""

from pathlib import Path

import pytest

from wire.card import RelayCard
from wire.errors import FormatError, RefusalCode
from wire.signing import SigningKey

CARD = RelayCard(SigningKey(b"r" * 32).public, "mqtt://127.0.0.1:1883")


def test_a_card_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "relay-card.toml"
    path.write_text(CARD.to_toml())
    assert RelayCard.read(path) == CARD
    assert CARD.relay_id.hex() in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("protocol = 1", "protocol = 2", "protocol: is not one that this program speaks"),
        ("protocol = 1", "protocol = true", "protocol: is not one"),
        ("partition = 0", "partition = 65536", "partition: 65536 is out of range"),
        ("partition = 0", "partition = false", "partition: is not an integer"),
        ("partition = 0", "", "lacks the field 'partition'"),
        ("partition = 0", 'partition = 0\nplaintext = "x"', "unknown field 'plaintext'"),
        ('broker = "mqtt', "broker = 5 #", "broker: is not text"),
        ("mqtt://127.0.0.1:1883", "http://127.0.0.1:1883", "is not mqtt://HOST:PORT"),
        ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1", "is not mqtt://HOST:PORT"),
        ("mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:port", "is not a URL with a port"),
        ("mqtt://127.0.0.1:1883", "mqtt://u:p@127.0.0.1:1883", "must not hold a user name"),
        ("mqtt://127.0.0.1:1883", "mqtt://hö.example:1883", "a character that a URL must not have"),
        ('signing_key = "', 'signing_key = "00', "signing_key: is not lower-case hexadecimal"),
        ('signing_key = "', 'signing_key = "zz', "signing_key: is not lower-case hexadecimal"),
        ('relay_id = "', 'relay_id = 5 #"', "relay_id: is not lower-case hexadecimal"),
        ("protocol", "protocol =", "is not TOML"),
    ],
)
def test_a_bad_card_is_refused_by_field(old: str, new: str, problem: str) -> None:
    assert old in CARD.to_toml()
    with pytest.raises(FormatError) as caught:
        RelayCard.from_toml(CARD.to_toml().replace(old, new, 1))
    assert problem in str(caught.value)


def test_a_card_with_another_relays_id_is_refused() -> None:
    other = RelayCard(SigningKey(b"s" * 32).public, CARD.broker)
    with pytest.raises(FormatError, match="relay_id: is not that of the signing key"):
        RelayCard.from_toml(CARD.to_toml().replace(CARD.relay_id.hex(), other.relay_id.hex()))


def test_a_card_file_that_is_no_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="UTF-8"):
        RelayCard.read(path)
    path.write_bytes(b"#" * 10_000)
    with pytest.raises(FormatError, match="limit 4096"):
        RelayCard.read(path)
    with pytest.raises(FormatError, match="signing_key"):
        RelayCard(b"short", CARD.broker)


def test_every_refusal_is_definite_or_says_when_to_ask_again() -> None:
    again = {code.name for code in RefusalCode if not code.definite}
    assert again == {"MAILBOX_FULL", "LINK_QUOTA", "OVERLOADED", "STORAGE_FAILED", "STOPPING"}


def test_a_format_error_names_field_problem_and_limit() -> None:
    assert str(FormatError("body", "has 5 bytes", 4)) == "body: has 5 bytes (limit 4)"
    assert str(FormatError("body", "is text")) == "body: is text"


def test_the_limits_of_the_code_are_those_of_the_spec() -> None:
    spec = Path(__file__).parents[2].joinpath("docs/protocol.md").read_text()
    table = spec[spec.index("**1.7 Limits**") : spec.index("## 2. Identities")]
    for number in ("262,144", "256", "196,696", "65,536", "196,608", "26,214,400", "1,000", "2,000", "128"):
        assert number in table
    codes = spec[spec.index("**6.5 Refusal codes.**") : spec.index("## 7. Content")]
    for code in RefusalCode:
        kind = "definite" if code.definite else "again"
        assert f"| {code.value} | {code.name.lower()} | {kind} |" in codes
