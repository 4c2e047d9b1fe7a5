"""The load keeps an account that cheating relays do not get past: each honest exchange has its attack twin.

The relay here is a stand-in of a few lines that signs real commits; what it may do wrong is planted in it.
"""

import os
from dataclasses import dataclass, field
from typing import cast

import pytest

from benchmarks.load.ledger import Ledger, LostOrDoubled
from benchmarks.load.link import DefinitelyRefused, LoadLink
from benchmarks.load.parties import Mail, Party, body_bytes_for, mail_for
from wire.codec import encode
from wire.commands import Delivered, Delivery, Receipts, Refusal
from wire.envelope import body_lengths
from wire.errors import RefusalCode
from wire.merkle import paths_of, root_of
from wire.receipt import CommitHeader, ReceiptEntry, leaf_hash
from wire.signing import SigningKey

KEY = SigningKey(bytes(32))
RECIPIENT = Party("r0@bench.example")


@dataclass
class Link:
    """Remembers what the ledger tells a link."""

    done: list[int] = field(default_factory=list)

    def answered(self, ref: int) -> bool:
        self.done.append(ref)
        return True


def receipts_of(mails: list[Mail], numbers: list[int], index: int = 1, key: SigningKey = KEY) -> Receipts:
    """One commit's receipts, one submit an envelope; ref is the place."""
    leaves = [
        leaf_hash(mail.envelope.mailbox, mail.envelope.envelope_id, mail.envelope.expiry, number, mail.body_hash)
        for mail, number in zip(mails, numbers, strict=True)
    ]
    header = encode(CommitHeader(bytes(16), 0, index, 1, len(leaves), root_of(leaves), bytes(32)))
    entries = tuple(
        ReceiptEntry(place, 0, number, place, path)
        for place, (number, path) in enumerate(zip(numbers, paths_of(leaves), strict=True))
    )
    return Receipts(header, key.sign("commit", header), entries)


def delivery_of(mails: list[Mail], numbers: list[int]) -> Delivery:
    return Delivery(
        RECIPIENT.mailbox,
        tuple(
            Delivered(number, mail.envelope.envelope_id, mail.envelope.expiry, mail.envelope.body)
            for mail, number in zip(mails, numbers, strict=True)
        ),
    )


class Exchange:
    """A ledger, and envelopes that were sent."""

    def __init__(self, count: int) -> None:
        self.fake = Link()
        self.link = cast(LoadLink, self.fake)
        self.ledger = Ledger(KEY.public)
        self.mails = [mail_for(RECIPIENT, 400) for _ in range(count)]
        for place, mail in enumerate(self.mails):
            assert self.ledger.add(mail) == place
            self.ledger.submitting(self.link, place, [place])
        self.ledger.sent = count
        self.numbers = list(range(1, count + 1))

    def honest(self) -> None:
        self.ledger.receipted(self.link, receipts_of(self.mails, self.numbers))
        self.ledger.delivered(self.link, delivery_of(self.mails, self.numbers))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64, 65])
def test_honest_exchange_closes_the_account(count: int) -> None:
    exchange = Exchange(count)
    exchange.honest()
    exchange.ledger.close()
    assert exchange.fake.done == list(range(count))
    assert exchange.ledger.delivered_count == count


def test_tokens_to_acknowledge_are_those_of_what_arrived() -> None:
    exchange = Exchange(2)
    tokens = exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [1, 2]))
    assert tokens == [mail.token for mail in exchange.mails]
    exchange.ledger.acknowledge = False
    assert exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [1, 2])) == []


def test_lost_envelope_fails_the_run() -> None:
    exchange = Exchange(3)
    exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [1, 2, 3]))
    exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails[:2], [1, 2]))
    with pytest.raises(LostOrDoubled, match="2 of 3 envelopes arrived"):
        exchange.ledger.close()


def test_envelope_without_a_receipt_fails_the_run() -> None:
    exchange = Exchange(2)
    exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails[:1], [1]))
    exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [1, 2]))
    with pytest.raises(LostOrDoubled, match="1 receipts for 2 envelopes"):
        exchange.ledger.close()


def test_envelope_under_two_numbers_was_stored_twice() -> None:
    exchange = Exchange(2)
    exchange.honest()
    with pytest.raises(LostOrDoubled, match="stored twice"):
        exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails[:1], [3]))


def test_repeated_delivery_is_counted_and_not_a_fault() -> None:
    exchange = Exchange(2)
    exchange.honest()
    exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [1, 2]))
    exchange.ledger.close()
    assert exchange.ledger.redelivered == 2


def test_two_envelopes_under_one_number_fail_the_run() -> None:
    exchange = Exchange(2)
    with pytest.raises(LostOrDoubled, match="under one number"):
        exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [1, 1]))


def test_delivery_under_another_number_than_the_receipts_fails_the_run() -> None:
    exchange = Exchange(2)
    exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [1, 2]))
    exchange.ledger.delivered(exchange.link, delivery_of(exchange.mails, [2, 1]))
    with pytest.raises(LostOrDoubled, match="another number than its receipt"):
        exchange.ledger.close()


def test_changed_body_and_foreign_envelope_fail_the_run() -> None:
    exchange = Exchange(1)
    (mail,) = exchange.mails
    changed = Delivered(1, mail.envelope.envelope_id, mail.envelope.expiry, os.urandom(400))
    with pytest.raises(LostOrDoubled, match="another body"):
        exchange.ledger.delivered(exchange.link, Delivery(RECIPIENT.mailbox, (changed,)))
    with pytest.raises(LostOrDoubled, match="was not sent"):
        exchange.ledger.delivered(exchange.link, delivery_of([mail_for(RECIPIENT, 400)], [1]))
    whole = Delivered(1, mail.envelope.envelope_id, mail.envelope.expiry, mail.envelope.body)
    with pytest.raises(LostOrDoubled, match="another mailbox"):
        exchange.ledger.delivered(exchange.link, Delivery(bytes(16), (whole,)))


def test_receipt_by_another_key_fails_the_run() -> None:
    exchange = Exchange(1)
    with pytest.raises(LostOrDoubled, match="header is false"):
        exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [1], key=SigningKey(b"\1" * 32)))


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13])
def test_every_changed_byte_place_or_number_of_a_path_fails_the_run(count: int) -> None:
    honest = Exchange(count)
    receipts = receipts_of(honest.mails, honest.numbers)
    for place in range(count):
        entry = receipts.entries[place]
        bent = [
            ReceiptEntry(place, 0, entry.number + 1, entry.leaf, entry.path),
            ReceiptEntry(place, 0, entry.number, (entry.leaf + 1) % count, entry.path),
            ReceiptEntry(place, 0, entry.number, entry.leaf, entry.path[:-32]),
            ReceiptEntry(place, 0, entry.number, entry.leaf, entry.path + bytes(32)),
            ReceiptEntry(place, 0, entry.number, count, entry.path),
        ]
        for at in range(0, len(entry.path), 32):
            path = entry.path[:at] + bytes([entry.path[at] ^ 1]) + entry.path[at + 1 :]
            bent.append(ReceiptEntry(place, 0, entry.number, entry.leaf, path))
        for one in bent:
            exchange = Exchange(0)
            exchange.mails = honest.mails
            for mail in honest.mails:
                exchange.ledger.add(mail)
            for other in range(count):
                exchange.ledger.submitting(exchange.link, other, [other])
            # The others first, so that what they have proven could hide the bent one.
            others = tuple(entry for entry in receipts.entries if entry.ref != place)
            exchange.ledger.receipted(exchange.link, Receipts(receipts.header, receipts.signature, others))
            with pytest.raises(LostOrDoubled, match="a receipt is false"):
                exchange.ledger.receipted(exchange.link, Receipts(receipts.header, receipts.signature, (one,)))


def test_second_receipt_under_another_number_fails_the_run() -> None:
    exchange = Exchange(1)
    exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [1]))
    exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [1]))
    with pytest.raises(LostOrDoubled, match="two receipts"):
        exchange.ledger.receipted(exchange.link, receipts_of(exchange.mails, [2], index=2))


def test_receipt_of_what_was_not_sent_fails_the_run() -> None:
    exchange = Exchange(1)
    with pytest.raises(LostOrDoubled, match="was not sent"):
        exchange.ledger.receipted(exchange.link, receipts_of([*exchange.mails, mail_for(RECIPIENT, 400)], [1, 2]))


def test_definite_refusal_ends_the_load_and_another_is_repeated_when_asked() -> None:
    link = LoadLink(cast("object", None), bytes(16), bytes(32), [RECIPIENT], Ledger(bytes(32)), lambda error: None)  # type: ignore[arg-type]
    with pytest.raises(DefinitelyRefused, match="conflict"):
        link._refused(Refusal(1, RefusalCode.CONFLICT, "envelope_id", 0, 0, b""))
    link._refused(Refusal(1, RefusalCode.OVERLOADED, "queue", 0, 500, b""))
    assert link.refusals == {"conflict": 1, "overloaded": 1}


@pytest.mark.parametrize("content_bytes", [0, 1, 255, 256, 1_024, 10_000, 65_536, 65_537, 100_000, 196_608])
def test_bodies_have_sizes_that_real_ones_have(content_bytes: int) -> None:
    assert body_bytes_for(content_bytes) in body_lengths()
