"""The Double Ratchet with header encryption: limits, attacks, healing (protocol.md sections 4.2 and 4.3)."""

import hashlib
from collections.abc import Callable

import msgspec
import pytest

from keys.agreement import diffie_hellman, hkdf, x_public
from keys.chain import chain_step, hint, hint_block, root_step
from keys.errors import AuthenticationFailed, DecryptionError, GapTooLarge, HeaderUnknown, MessageKeyGone
from keys.message import aead_seal, message_keys, seal_content
from keys.ratchet import Ratchet
from tests.keys.people import NOW_S, SeededEntropy
from wire.errors import BlindpostError, FormatError
from wire.limits import SKIPPED_KEYS_PER_GAP_MAX, SKIPPED_KEYS_PER_SESSION_MAX, SKIPPED_KEYS_S

AD = b"associated data up to the envelope id"
OFFSET = 128


def ratchets() -> tuple[Ratchet, Ratchet]:
    """Two ratchets, each of which has heard of the other."""
    prekey = bytes(range(32))
    a = Ratchet.initiator(b"r" * 32, b"h" * 32, b"n" * 32, x_public(prekey), SeededEntropy("a"))
    b = Ratchet.responder(b"r" * 32, b"h" * 32, b"n" * 32, prekey, SeededEntropy("b"))
    assert b.decrypt(a.encrypt(b"1", AD), AD, OFFSET, NOW_S) == b"1"
    assert a.decrypt(b.encrypt(b"2", AD), AD, OFFSET, NOW_S) == b"2"
    return a, b


def reloaded(ratchet: Ratchet) -> Ratchet:
    return Ratchet.from_bytes(ratchet.to_bytes(), SeededEntropy("reloaded"))


def refused(ratchet: Ratchet, body: bytes, now_s: int = NOW_S) -> BlindpostError:
    """The error of a body that does not open, which has moved no state."""
    before = ratchet.to_bytes()
    with pytest.raises((DecryptionError, FormatError)) as caught:
        ratchet.decrypt(body, AD, OFFSET, now_s)
    assert ratchet.to_bytes() == before
    return caught.value


# ---------------------------------------------------------------------------------------------- derivations


def test_derivations_are_as_written() -> None:
    okm = hkdf(b"d" * 32, b"r" * 32, b"blindpost/v1/ratchet-root\0", 96)
    assert root_step(b"r" * 32, b"d" * 32) == (okm[:32], okm[32:64], okm[64:])
    both = hashlib.blake2b(b"", digest_size=64, key=b"c" * 32, person=b"bp1-chain").digest()
    assert chain_step(b"c" * 32) == (both[:32], both[32:])
    for n in (0, 1, 2, 3, 4, 1_001):
        block = hashlib.blake2b((n // 4).to_bytes(8, "big"), digest_size=64, key=b"h" * 32, person=b"bp1-hint").digest()
        assert hint_block(b"h" * 32, n // 4) == block
        assert hint(b"h" * 32, n) == block[16 * (n % 4) : 16 * (n % 4) + 16]


def test_each_turn_has_a_ratchet_key_that_no_turn_had_before() -> None:
    a, b = ratchets()
    seen = [a.remote, b.remote]
    for _ in range(40):
        b.decrypt(a.encrypt(b"over", AD), AD, OFFSET, NOW_S)
        a.decrypt(b.encrypt(b"and back", AD), AD, OFFSET, NOW_S)
        seen += [b.remote, a.remote]
    assert len(set(seen)) == len(seen) == 82


def test_first_bodies_of_both_sides_follow_the_specification() -> None:
    prekey = bytes(range(32))
    a = Ratchet.initiator(b"r" * 32, b"h" * 32, b"n" * 32, x_public(prekey), SeededEntropy("a"))
    body = a.encrypt(b"one", AD)
    private = SeededEntropy("a")(32)
    root, chain, next_header = root_step(b"r" * 32, diffie_hellman(private, x_public(prekey)))
    _, message_key = chain_step(chain)
    encryption_key, commitment = message_keys(message_key)
    nonce = body[48:72]
    start = hint(b"h" * 32, 0) + commitment
    header = aead_seal(x_public(private) + bytes(8), start, nonce, b"h" * 32)
    prefix = start + nonce + header
    assert body == prefix + seal_content(encryption_key, AD + prefix, nonce, b"one")
    assert (a.root, a.next_header_send) == (root, next_header)


def test_messages_of_a_chain_and_of_alternating_turns() -> None:
    a, b = ratchets()
    for turn in range(6):
        sender, receiver = (a, b) if turn % 2 else (b, a)
        for number in range(5):
            content = b"%d.%d" % (turn, number)
            assert receiver.decrypt(sender.encrypt(content, AD), AD, OFFSET, NOW_S) == content


def test_two_bodies_of_one_content_have_nothing_in_common() -> None:
    a, _ = ratchets()
    one, two = a.encrypt(b"same", AD), a.encrypt(b"same", AD)
    assert all(one[i : i + 16] != two[i : i + 16] for i in range(0, len(one) - 15, 16))


def test_content_above_the_limit_is_refused_and_moves_nothing() -> None:
    a, _ = ratchets()
    before = a.to_bytes()
    with pytest.raises(FormatError, match=r"content: has 65537 bytes \(limit 65536\)"):
        a.encrypt(bytes(65_537), AD)
    assert a.to_bytes() == before
    assert len(a.encrypt(bytes(65_536), AD)) == 144 + 67_584


def test_short_read_of_entropy_sends_nothing_and_moves_nothing() -> None:
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    for side in (a, b):  # a would need a nonce, b a ratchet key too
        before = side.to_bytes()
        short = Ratchet.from_bytes(before, lambda size: bytes(size - 1))
        with pytest.raises(FormatError, match="entropy"):
            short.encrypt(b"m", AD)
        assert short.to_bytes() == before


def test_chain_ends_before_its_number_overflows() -> None:
    a, _ = ratchets()
    a.encrypt(b"m", AD)
    a.n_send = 2**32 - 1
    before = a.to_bytes()
    with pytest.raises(FormatError, match=r"n: the chain is at its end \(limit 4294967295\)"):
        a.encrypt(b"m", AD)
    assert a.to_bytes() == before


# ---------------------------------------------------------------------------------------------- attacks


def test_every_flipped_bit_moves_no_state_in_chain_and_turn() -> None:
    a, b = ratchets()
    turning = a.encrypt(b"m", AD)  # a turn for b
    for at in range(8 * len(turning)):
        flipped = bytearray(turning)
        flipped[at // 8] ^= 1 << at % 8
        refused(b, bytes(flipped))
    assert b.decrypt(turning, AD, OFFSET, NOW_S) == b"m"
    following = a.encrypt(b"m", AD)
    for at in range(8 * len(following)):
        flipped = bytearray(following)
        flipped[at // 8] ^= 1 << at % 8
        refused(b, bytes(flipped))
    assert b.decrypt(following, AD, OFFSET, NOW_S) == b"m"


def test_flipped_bits_of_a_skipped_message_move_no_state() -> None:
    a, b = ratchets()
    late = a.encrypt(b"late", AD)
    b.decrypt(a.encrypt(b"now", AD), AD, OFFSET, NOW_S)
    for at in range(0, 8 * len(late), 7):
        flipped = bytearray(late)
        flipped[at // 8] ^= 1 << at % 8
        refused(b, bytes(flipped))
    assert b.decrypt(late, AD, OFFSET, NOW_S) == b"late"


def test_other_associated_data_is_refused() -> None:
    a, b = ratchets()
    body, before = a.encrypt(b"m", AD), b.to_bytes()
    with pytest.raises(AuthenticationFailed, match="content"):
        b.decrypt(body, AD[:-1] + b"X", OFFSET, NOW_S)
    assert b.to_bytes() == before


def test_body_turned_round_is_refused() -> None:
    a, b = ratchets()
    assert isinstance(refused(a, a.encrypt(b"m", AD)), HeaderUnknown)
    assert isinstance(refused(b, bytes(400)), HeaderUnknown)


def test_body_opens_once() -> None:
    a, b = ratchets()
    body = a.encrypt(b"m", AD)
    b.decrypt(body, AD, OFFSET, NOW_S)
    error = refused(b, body)
    assert isinstance(error, MessageKeyGone)
    assert str(error) == "message key 0: used or expired, and erased"


def test_skipped_body_opens_once() -> None:
    a, b = ratchets()
    late = a.encrypt(b"late", AD)
    b.decrypt(a.encrypt(b"now", AD), AD, OFFSET, NOW_S)
    assert b.decrypt(late, AD, OFFSET, NOW_S) == b"late"
    assert isinstance(refused(b, late), MessageKeyGone)


@pytest.mark.parametrize("length", [0, 399])
def test_body_out_of_bounds_is_refused(length: int) -> None:
    _, b = ratchets()
    assert isinstance(refused(b, bytes(length)), FormatError)


class Peer:
    """A peer who has the keys and breaks the rules: makes any body that the session's keys can make."""

    def __init__(self, ratchet: Ratchet) -> None:
        self.r = ratchet

    def body(
        self,
        *,
        n: int,
        previous_n: int = 0,
        slot: bytes | None = None,
        public: bytes | None = None,
        header_key: bytes | None = None,
        chain: bytes | None = None,
    ) -> bytes:
        key = header_key or self.r.header_send
        start_chain = chain or self.r.chain_send
        for _ in range(n - self.r.n_send if chain is None else n):
            start_chain, _ = chain_step(start_chain)
        encryption_key, commitment = message_keys(chain_step(start_chain)[1])
        nonce = bytes(24)
        start = (slot or hint(key, n)) + commitment
        plain = (public or self.r.ratchet_public) + previous_n.to_bytes(4, "big") + n.to_bytes(4, "big")
        prefix = start + nonce + aead_seal(plain, start, nonce, key)
        return prefix + seal_content(encryption_key, AD + prefix, nonce, b"made")


def test_peer_body_is_what_the_ratchet_would_make() -> None:
    """The control of the tests below: the same construction, with nothing broken, opens."""
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    assert b.decrypt(Peer(a).body(n=1, previous_n=a.previous_n), AD, OFFSET, NOW_S) == b"made"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda peer: peer.body(n=1, slot=hint(peer.r.header_send, 2)), "hint"),
        (lambda peer: peer.body(n=1, slot=b"x" * 16), "hint"),
        (lambda peer: peer.body(n=1, public=x_public(b"p" * 32)), "ratchet key of the chain"),
        (lambda peer: peer.body(n=0, header_key=peer.r.next_header_send, chain=b"c" * 32), "ratchet key out of turn"),
    ],
)
def test_peer_who_breaks_the_rules_of_a_chain_is_refused(make: Callable[[Peer], bytes], what: str) -> None:
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    error = refused(b, make(Peer(a)))
    assert isinstance(error, AuthenticationFailed)
    assert error.what == what


def test_hint_of_another_number_at_a_turn_is_refused() -> None:
    a, b = ratchets()
    a.encrypt(b"m", AD)
    error = refused(b, Peer(a).body(n=1, previous_n=a.previous_n, slot=hint(a.header_send, 0)))
    assert isinstance(error, AuthenticationFailed)
    assert error.what == "hint"


def test_pn_below_what_was_received_is_refused() -> None:
    a, b = ratchets()
    a.encrypt(b"m", AD)
    error = refused(b, Peer(a).body(n=1, previous_n=0))
    assert isinstance(error, AuthenticationFailed)
    assert error.what == "pn"


def test_pn_before_any_chain_is_refused() -> None:
    prekey = bytes(range(32))
    a = Ratchet.initiator(b"r" * 32, b"h" * 32, b"n" * 32, x_public(prekey), SeededEntropy("a"))
    b = Ratchet.responder(b"r" * 32, b"h" * 32, b"n" * 32, prekey, SeededEntropy("b"))
    a.encrypt(b"m", AD)
    error = refused(b, Peer(a).body(n=1, previous_n=1))
    assert isinstance(error, AuthenticationFailed)
    assert error.what == "pn"


def test_ratchet_key_of_small_order_is_refused() -> None:
    a, b = ratchets()
    a.encrypt(b"m", AD)
    body, before = Peer(a).body(n=1, previous_n=1, public=bytes(32)), b.to_bytes()
    with pytest.raises(DecryptionError, match="all zeros"):
        b.decrypt(body, AD, OFFSET, NOW_S)
    assert b.to_bytes() == before


def test_number_of_a_skipped_message_must_be_that_of_its_hint() -> None:
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    peer = Peer(reloaded(a))
    a.encrypt(b"late", AD)
    b.decrypt(a.encrypt(b"now", AD), AD, OFFSET, NOW_S)
    error = refused(b, peer.body(n=2, slot=hint(a.header_send, 1)))
    assert isinstance(error, AuthenticationFailed)
    assert error.what == "hint"


# ---------------------------------------------------------------------------------------------- loss and limits


def test_gap_of_a_thousand_is_bridged_and_one_more_is_refused() -> None:
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    skipped = [a.encrypt(b"late %d" % number, AD) for number in range(SKIPPED_KEYS_PER_GAP_MAX + 1)]
    error = refused(b, a.encrypt(b"too far", AD))
    assert isinstance(error, GapTooLarge)
    assert str(error) == "gap of 1001 messages (limit 1000)"
    assert b.decrypt(skipped[-1], AD, OFFSET, NOW_S) == b"late 1000"
    for number in (999, 0, 500):
        assert b.decrypt(skipped[number], AD, OFFSET, NOW_S) == b"late %d" % number


def test_gap_at_a_turn_counts_in_both_chains() -> None:
    a, b = ratchets()
    a.encrypt(b"m", AD)
    for previous_n, n in ((1_002, 1), (1, 1_001)):
        error = refused(b, Peer(a).body(previous_n=previous_n, n=n))
        assert isinstance(error, GapTooLarge)
        assert error.gap == 1_001


def test_late_messages_of_a_chain_that_is_over_still_open() -> None:
    a, b = ratchets()
    late = [a.encrypt(b"old %d" % number, AD) for number in range(10)]
    b.decrypt(late.pop(0), AD, OFFSET, NOW_S)
    a.decrypt(b.encrypt(b"turn", AD), AD, OFFSET, NOW_S)
    newer = [a.encrypt(b"new %d" % number, AD) for number in range(10)]
    b.decrypt(newer.pop(), AD, OFFSET, NOW_S)
    b = reloaded(b)
    assert [b.decrypt(body, AD, OFFSET, NOW_S) for body in reversed(late)] == [b"old %d" % n for n in range(9, 0, -1)]
    assert [b.decrypt(body, AD, OFFSET, NOW_S) for body in newer] == [b"new %d" % n for n in range(9)]
    assert not b.skipped


def test_session_keeps_two_thousand_skipped_keys_and_drops_the_oldest() -> None:
    a, b = ratchets()
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    bodies = []
    for _ in range(3):
        bodies += [a.encrypt(b"s", AD) for _ in range(900)]
        b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    assert len(b.skipped) == SKIPPED_KEYS_PER_SESSION_MAX
    assert isinstance(refused(b, bodies[699]), MessageKeyGone)
    assert b.decrypt(bodies[700], AD, OFFSET, NOW_S) == b"s"
    assert reloaded(b).to_bytes() == b.to_bytes()


def test_skipped_key_is_kept_for_seven_days_and_then_erased() -> None:
    a, b = ratchets()
    late = a.encrypt(b"late", AD)
    later = a.encrypt(b"later", AD)
    b.decrypt(a.encrypt(b"now", AD), AD, OFFSET, NOW_S)
    kept = b.skipped[later[:16]]
    assert b.decrypt(late, AD, OFFSET, NOW_S + SKIPPED_KEYS_S) == b"late"
    assert isinstance(refused(b, later, NOW_S + SKIPPED_KEYS_S + 1), MessageKeyGone)
    assert b.expire(NOW_S + SKIPPED_KEYS_S) == []
    assert kept.message_key in b.to_bytes()
    assert b.expire(NOW_S + SKIPPED_KEYS_S + 1) == [later[:16]]
    assert kept.message_key not in b.to_bytes()
    assert isinstance(refused(b, later), MessageKeyGone)


def test_any_message_erases_skipped_keys_that_are_too_old() -> None:
    a, b = ratchets()
    a.encrypt(b"lost", AD)
    b.decrypt(a.encrypt(b"now", AD), AD, OFFSET, NOW_S)
    assert len(b.skipped) == 1
    b.decrypt(a.encrypt(b"next week", AD), AD, OFFSET, NOW_S + SKIPPED_KEYS_S + 1)
    assert not b.skipped


# ---------------------------------------------------------------------------------------------- volunteering


def test_message_key_on_a_copy_moves_nothing_and_is_the_key_that_decrypt_uses() -> None:
    a, b = ratchets()
    late, turning = a.encrypt(b"late", AD), a.encrypt(b"m", AD)
    before = b.to_bytes()
    keys = [b.message_key_of(body, NOW_S) for body in (late, turning)]
    assert b.to_bytes() == before
    assert b.decrypt(turning, AD, OFFSET, NOW_S) == b"m"
    assert b.message_key_of(late, NOW_S) == keys[0]  # a skipped key by now
    assert [message_keys(key)[1] for key in keys] == [late[16:48], turning[16:48]]
    with pytest.raises(MessageKeyGone):
        b.message_key_of(turning, NOW_S)


# ---------------------------------------------------------------------------------------------- secrecy


def test_state_after_a_message_does_not_hold_its_key() -> None:
    """C3: what is seized later opens nothing that was opened before."""
    a, b = ratchets()
    body = a.encrypt(b"m", AD)
    key = b.message_key_of(body, NOW_S)
    b.decrypt(body, AD, OFFSET, NOW_S)
    for state in (a.to_bytes(), b.to_bytes()):
        assert key not in state
        with pytest.raises(DecryptionError):
            Ratchet.from_bytes(state, SeededEntropy("thief")).decrypt(body, AD, OFFSET, NOW_S)


def test_session_heals_after_one_round_trip() -> None:
    """A thief with the whole state of b reads on until b has sent and a has answered, and nothing from then on."""
    a, b = ratchets()
    b.decrypt(a.encrypt(b"before", AD), AD, OFFSET, NOW_S)
    thief = Ratchet.from_bytes(b.to_bytes(), SeededEntropy("thief"))
    follows = a.encrypt(b"the thief reads this", AD)
    assert thief.decrypt(follows, AD, OFFSET, NOW_S) == b"the thief reads this"
    b.decrypt(follows, AD, OFFSET, NOW_S)
    a.decrypt(b.encrypt(b"b's new ratchet key", AD), AD, OFFSET, NOW_S)
    healed = a.encrypt(b"the thief does not read this", AD)
    assert isinstance(refused(thief, healed), HeaderUnknown | AuthenticationFailed)
    assert b.decrypt(healed, AD, OFFSET, NOW_S) == b"the thief does not read this"


def test_private_ratchet_key_is_erased_at_a_turn() -> None:
    a, b = ratchets()
    private = b.ratchet_private
    assert private
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    assert b.ratchet_private == b""
    assert private not in b.to_bytes()


def test_repr_shows_counters_only() -> None:
    a, b = ratchets()
    a.encrypt(b"lost", AD)
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    assert repr(b) == "Ratchet(n_send=1, n_receive=2, previous_n=0, skipped=1, keys=<redacted>)"
    assert repr(next(iter(b.skipped.values()))) == f"Skipped(n=0, stored_s={NOW_S}, keys=<redacted>)"


# ---------------------------------------------------------------------------------------------- storage


def test_every_key_of_the_state_is_among_its_secrets() -> None:
    a, b = ratchets()
    a.encrypt(b"lost", AD)
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    public = {b.ratchet_public, b.remote}
    state = msgspec.msgpack.decode(b.to_bytes())
    keys = {value for value in state[:14] if isinstance(value, bytes) and value} - public
    keys |= {row[3] for row in msgspec.msgpack.decode(state[14])}
    assert {key for _, key in b.secrets()} == keys
    assert "private ratchet key" not in dict(b.secrets())
    b.encrypt(b"m", AD)
    assert dict(b.secrets())["private ratchet key"] == b.ratchet_private


def test_damaged_state_is_refused() -> None:
    a, b = ratchets()
    a.encrypt(b"lost", AD)
    b.decrypt(a.encrypt(b"m", AD), AD, OFFSET, NOW_S)
    state = b.to_bytes()
    for damaged in (state[:-1], state + b"\0", b"", b"\x90"):
        with pytest.raises(FormatError, match="ratchet"):
            Ratchet.from_bytes(damaged, SeededEntropy("x"))
    fields = msgspec.msgpack.decode(state)
    for at, value in ((0, 2), (1, b""), (4, b"short"), (11, bytes(31)), (7, -1), (14, b"\xc0")):
        wrong = [*fields[:at], value, *fields[at + 1 :]]
        with pytest.raises(FormatError, match="ratchet"):
            Ratchet.from_bytes(msgspec.msgpack.encode(wrong), SeededEntropy("x"))


def test_state_with_too_many_skipped_keys_is_refused() -> None:
    _, b = ratchets()
    fields = msgspec.msgpack.decode(b.to_bytes())
    row = [bytes(16), bytes(32), 0, bytes(32), NOW_S]
    fields[14] = msgspec.msgpack.encode([row] * (SKIPPED_KEYS_PER_SESSION_MAX + 1))
    with pytest.raises(FormatError, match=r"ratchet.skipped: has 2001 keys \(limit 2000\)"):
        Ratchet.from_bytes(msgspec.msgpack.encode(fields), SeededEntropy("x"))
