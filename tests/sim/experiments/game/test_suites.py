"""The honest client is the real one, and every twin's cheat is really there: shown by reading it."""

import pytest

from client.content import Content, decode_content
from keys.message import COMMITMENT_END, HEADER_END, NONCE_END
from sim.experiments.game.chance import Chance
from sim.experiments.game.contents import ANA, BOB, Composer, Message
from sim.experiments.game.plan import TWINS
from sim.experiments.game.suites import HONEST, SUITES, Lane, Suite
from sim.historical import read_message
from wire.envelope import body_lengths, envelope_id_of

NOW_S = 1_448_841_600


def _sent(suite: Suite, world: int, texts: int = 2, padded_bytes: int = 512) -> tuple[Lane, list[Content], list[bytes]]:
    """Messages of one lane, and their bodies."""
    chance = Chance(1, "suites", 5)
    chance.world = world
    lane = Lane(chance, chance(32), chance(32))
    composer = Composer(chance, suite.slack_bytes)
    message = Message(ANA, BOB, 0, padded_bytes, None)
    contents = [composer.compose(message, chance(16), chance(16), NOW_S * 1_000 + n) for n in range(texts)]
    return lane, contents, [suite.seal(lane, content, content.envelope_id) for content in contents]


def _nonce(body: bytes) -> bytes:
    return body[COMMITMENT_END:NONCE_END]


def test_the_plans_twins_are_the_suites() -> None:
    assert tuple(SUITES) == TWINS
    assert all(suite.cheat for suite in SUITES.values())


@pytest.mark.parametrize("world", [0, 1])
@pytest.mark.parametrize("name", ["honest", "kind flag", "timed", "ordered"])
def test_what_is_sent_opens_at_the_recipient(name: str, world: int) -> None:
    suite = SUITES.get(name, HONEST)
    lane, contents, bodies = _sent(suite, world, 3)
    session = lane.recipients_session()
    for content, body in zip(contents, bodies, strict=True):
        assert decode_content(session.decrypt(body, envelope_id_of(content.token), NOW_S)) == content


@pytest.mark.parametrize("suite", [HONEST, *(SUITES[name] for name in TWINS if name != "no padding")])
def test_both_worlds_have_one_body_length(suite: Suite) -> None:
    for padded_bytes in (256, 272, 512, 896):
        lengths = {len(body) for world in (0, 1) for body in _sent(suite, world, 2, padded_bytes)[2]}
        assert lengths == {padded_bytes + 144}
        assert lengths <= body_lengths()


def test_no_padding_shows_the_length() -> None:
    (chat, *_), (mail, *_) = (_sent(SUITES["no padding"], world)[2] for world in (0, 1))
    assert len(chat) < len(mail) == 512 + 144


def test_nonce_reuse_gives_the_sum_of_two_contents() -> None:
    _, contents, (one, other) = _sent(SUITES["nonce reuse"], 1)
    assert _nonce(one) == _nonce(other)
    assert one[:16] != other[:16]
    summed = bytes(a ^ b for a, b in zip(one[HEADER_END:], other[HEADER_END:], strict=True))
    plain = bytes(a ^ b for a, b in zip(contents[0].token, contents[1].token, strict=True))
    # The content structure begins with the array's and the token's headers.
    assert summed[3 : 3 + 16] == plain
    assert summed.count(0) > len(summed) // 2


def test_a_deterministic_client_gives_one_ciphertext_to_one_payload() -> None:
    (repeated, again), (chat, other) = (_sent(SUITES["deterministic"], world)[2] for world in (1, 0))
    assert _nonce(repeated) == _nonce(again)
    assert repeated[HEADER_END + 96 : -32] == again[HEADER_END + 96 : -32]
    assert _nonce(chat) != _nonce(other)


def test_the_historical_key_opens_everything() -> None:
    _, contents, bodies = _sent(SUITES["historical key"], 1)
    assert [read_message(body).payload for body in bodies] == [content.payload for content in contents]


def test_the_kind_flag_is_the_kind() -> None:
    for world, kind in ((0, 2), (1, 1)):
        assert {_nonce(body)[0] for body in _sent(SUITES["kind flag"], world)[2]} == {kind}


def test_cleartext_is_readable() -> None:
    _, contents, bodies = _sent(SUITES["cleartext"], 1)
    assert all(content.payload in body for content, body in zip(contents, bodies, strict=True))


def test_honest_bodies_hold_no_payload_and_repeat_nothing() -> None:
    _, contents, bodies = _sent(HONEST, 1, 8)
    assert not any(content.payload[:16] in body for content in contents for body in bodies)
    assert len({_nonce(body) for body in bodies}) == len({body[HEADER_END:] for body in bodies}) == 8


def test_no_key_is_shown() -> None:
    lane, *_ = _sent(HONEST, 0)
    assert "redacted" in repr(lane)
    assert lane._root.hex() not in repr(lane)
