"""Two worlds under one pattern: whatever is in L is the same in both, and everything else differs."""

from client.content import Kind, encode_content
from sim.experiments.game.chance import Chance
from sim.experiments.game.contents import ANA, Composer, Message, draw_pattern
from wire.padding import padded_length


def _in_world(world: int, number: int = 3) -> Chance:
    chance = Chance(1, "contents", number)
    chance.world = world
    return chance


def test_the_pattern_does_not_depend_on_the_world() -> None:
    for number in range(50):
        assert draw_pattern(_in_world(0, number)) == draw_pattern(_in_world(1, number))


def test_first_and_last_message_could_be_the_same_one() -> None:
    for number in range(50):
        first, *_, last = draw_pattern(_in_world(0, number))
        assert (first.sender, first.padded_bytes) == (last.sender, last.padded_bytes) == (ANA, first.padded_bytes)


def test_both_worlds_have_the_padded_size_of_the_pattern_and_nothing_else_in_common() -> None:
    for number in range(60):
        by_world = []
        for world in (0, 1):
            chance = _in_world(world, number)
            pattern = draw_pattern(chance)
            composer = Composer(chance)
            contents = [composer.compose(message, bytes(16), bytes(16), 1_448_841_600_000) for message in pattern]
            encoded = [encode_content(content) for content in contents]
            assert [padded_length(len(one)) for one in encoded] == [message.padded_bytes for message in pattern]
            by_world.append((contents, encoded))
        (chats, short), (mails, long) = by_world
        assert {content.kind for content in chats} == {Kind.CHAT}
        assert {content.kind for content in mails} == {Kind.EMAIL}
        assert all(less < more for less, more in zip(map(len, short), map(len, long), strict=True))
        assert mails[0].payload == mails[-1].payload
        assert chats[0].payload != chats[-1].payload


def test_a_payload_of_256_bytes_or_more_takes_one_byte_more_and_still_fits() -> None:
    for padded_bytes in (320, 336, 352, 368):
        for world in (0, 1):
            message = Message(ANA, "bob@acme.example", 0, padded_bytes, None)
            content = Composer(_in_world(world)).compose(message, bytes(16), bytes(16), 1)
            assert padded_length(len(encode_content(content))) == padded_bytes


def test_episodes_of_another_number_purpose_or_seed_share_no_randomness() -> None:
    drawn = [Chance(*name)(32) for name in ((1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0))]
    assert len(set(drawn)) == 4
    assert Chance(1, "a", 0)(32) == drawn[0]


def test_randomness_is_one_stream_however_it_is_drawn() -> None:
    one, many = Chance(1, "a", 0), Chance(1, "a", 0)
    assert one(4_000) == b"".join(many(10) for _ in range(400))
    # What does not fit the block any more begins the next.
    assert len(one(9_000)) == 9_000


def test_the_worlds_come_from_a_fair_coin() -> None:
    worlds = sum(Chance(1, "coin", number).world for number in range(4_096))
    # Four standard deviations of 32.
    assert abs(worlds - 2_048) < 4 * 32
