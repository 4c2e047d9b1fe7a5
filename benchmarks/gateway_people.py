"""The devices behind the gateway that `benchmarks gateway` measures: real keys, sessions, ratchets and padding.

Each holds one session with the next one, established as the protocol says (PQXDH with a one-time prekey, one reply).
What a device would do beside it is left out, and said: no home on disk (client/store.py), so no sealed rows and no
fsync of its own for each message. Receipts are verified, deliveries are decrypted and compared.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from benchmarks.load.ledger import LostOrDoubled
from benchmarks.load.parties import TENANT, activation_token
from client.content import NO_REPLY, Content, Kind, decode_content, encode_content
from client.errors import GatewayBusy, TransportClosed
from client.gateway import Gateway, Member
from client.gateway.messages import Answers, Confirmed, Heard, Offer, answer_offer
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.session import Session
from wire.card import RelayCard
from wire.commands import (
    Ack,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Receipts,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import RefusalCode
from wire.identity import list_hash
from wire.limits import ID_BYTES, TOKENS_PER_ACK_MAX
from wire.merkle import verify_path
from wire.prekeys import Bundle
from wire.receipt import CommitHeader, leaf_hash, verify_header
from wire.signing import SigningKey

__all__ = ["Chatter", "Totals"]

_HOUR_S: Final = 3_600
_FIRST_ID: Final = bytes(ID_BYTES)
_BUSY_S: Final = 0.01


class Totals:
    """What all devices of a run count together; `*_ns` is time on this thread."""

    def __init__(self, card: RelayCard) -> None:
        self.card = card
        self.encrypt_ns = 0
        self.decrypt_ns = 0
        self.receipted = 0
        self.delivered = 0
        self.busy = 0
        self.refused: Counter[int] = Counter()
        self._headers: dict[bytes, CommitHeader] = {}

    def header(self, header: bytes, signature: bytes) -> CommitHeader:
        """A commit's header, its signature verified once for all its receipts."""
        known = self._headers.get(header)
        if known is None:
            known = self._headers[header] = verify_header(self.card.signing_key, header, signature)
        return known


class Chatter:
    """One device: it chats with the next one, and hears from the one before.

    Args:
        number: names its account.
        totals: of the run.
        text: what a chat says.
    """

    def __init__(self, number: int, totals: Totals, text: bytes) -> None:
        self.account = f"chatter{number}@{TENANT}"
        self.keys = DeviceKeys.generate()
        self.signed_list = AccountKey.generate().first_list(self.account, [self.keys.entry])
        self.list_hash = list_hash(self.signed_list)
        self.ring, self.upload = PrekeyRing.generate(self.keys, int(time.time()), one_time=1)
        self._totals = totals
        self._text = text
        self._member: Member | None = None
        self._task: asyncio.Task[None] | None = None
        self._ref = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._submits: dict[int, tuple[tuple[Envelope, ...], set[int]]] = {}
        self._to: Chatter | None = None
        self._out: Session | None = None
        self._in: Session | None = None
        self._sender: Chatter | None = None
        self._left = 0
        self._window = self._per_submit = 0
        self.all_receipted = asyncio.Event()
        self.sent: set[bytes] = set()
        self.heard: set[bytes] = set()

    def talk_to(self, other: "Chatter") -> None:
        """Begin a session with another device, up to its reply: from then on bodies are ordinary ones."""
        now_s = int(time.time())
        bundle = Bundle(
            other.upload.device_key, other.upload.signed_prekey, other.upload.kem_prekey, other.upload.one_time
        )
        self._out = Session.initiate(self.keys, self.signed_list, other.keys.entry, bundle)
        first = self._out.encrypt(b"first", _FIRST_ID)
        accepted = Session.accept(other.keys, other.ring, first, _FIRST_ID, now_s, check_sender=lambda inbound: None)
        self._out.decrypt(accepted.session.encrypt(b"reply", _FIRST_ID), _FIRST_ID, now_s)
        self._to, other._in, other._sender = other, accepted.session, self

    # Joining

    async def enrol(self, gateway: Gateway, admin: SigningKey) -> None:
        """Join the gateway, and enrol through it."""
        self._member = gateway.join(self.keys.public, self.keys.mailbox)
        self._task = asyncio.create_task(self._listen(self._member))
        token = activation_token(admin, self.account)
        await self.ask(lambda ref: Enrol(ref, token, self.signed_list, self.upload))

    async def stop(self) -> None:
        """Leave."""
        if self._member is not None:
            self._member.leave()
        if self._task is not None:
            await self._task

    async def ask(self, command_of: Callable[[int], DeviceCommand]) -> None:
        """Ask, and wait until it is done."""
        assert self._member is not None, "joined first"
        self._ref += 1
        future = self._waiting[self._ref] = asyncio.get_running_loop().create_future()
        self._member.ask(command_of(self._ref))
        await future

    async def subscribe(self) -> None:
        """Take deliveries."""
        await self.ask(lambda ref: Subscribe(ref, self.keys.mailbox, 0, 1_024))

    # Sending

    def begin(self, count: int, window: int, per_submit: int) -> None:
        """Send so many chats, with at most `window` submits of `per_submit` chats that have no receipts yet."""
        self._left, self._window, self._per_submit = count, window, per_submit
        self._pump()

    def _pump(self) -> None:
        while self._left and len(self._submits) < self._window:
            count = min(self._left, self._per_submit)
            self._left -= count
            self._submit(tuple(self._envelope() for _ in range(count)))
        if not self._left and not self._submits:
            self.all_receipted.set()

    def _envelope(self) -> Envelope:
        assert self._out is not None, "a session was begun"
        assert self._to is not None, "a session was begun"
        token, message_id = os.urandom(ID_BYTES), os.urandom(ID_BYTES)
        now_ms = time.time_ns() // 1_000_000
        content = Content(token, Kind.CHAT, message_id, now_ms, NO_REPLY, (self._to.account,), self._text)
        encoded, envelope_id = encode_content(content), envelope_id_of(token)
        self.sent.add(message_id)
        start = time.thread_time_ns()
        body = self._out.encrypt(encoded, envelope_id)
        self._totals.encrypt_ns += time.thread_time_ns() - start
        expiry = (now_ms // 1_000 // _HOUR_S + 25) * _HOUR_S
        return Envelope(self._to.keys.mailbox, envelope_id, expiry, body)

    def _submit(self, envelopes: tuple[Envelope, ...]) -> None:
        assert self._member is not None, "joined first"
        assert self._to is not None, "a session was begun"
        self._ref += 1
        self._submits[self._ref] = envelopes, set(range(len(envelopes)))
        self._put(Submit(self._ref, self._to.account, self._to.list_hash, envelopes))

    def _put(self, command: DeviceCommand) -> None:
        assert self._member is not None, "joined first"
        try:
            self._member.ask(command)
        except GatewayBusy:
            self._totals.busy += 1
            asyncio.get_running_loop().call_later(_BUSY_S, self._put, command)

    # Hearing

    async def _listen(self, member: Member) -> None:
        try:
            while True:
                for message in await member.hear():
                    self._hear(member, message)
        except TransportClosed:
            return

    def _hear(self, member: Member, message: Heard) -> None:
        match message:
            case Offer():
                card = self._totals.card
                proof, _chain = answer_offer(self.keys.signing, card.relay_id, card.signing_key, message)
                member.prove(proof.transcript, proof.signature)
            case Answers(commands):
                for command in commands:
                    self._answered(member, command)
            case Confirmed():
                pass  # what was asked waits for it by itself

    def _answered(self, member: Member, command: RelayCommand) -> None:
        match command:
            case Receipts():
                self._receipted(member, command)
            case Delivery(_mailbox, envelopes):
                tokens = [self._open(one.envelope_id, one.body) for one in envelopes]
                for start in range(0, len(tokens), TOKENS_PER_ACK_MAX):
                    self._ref += 1
                    self._put(Ack(self._ref, self.keys.mailbox, tuple(tokens[start : start + TOKENS_PER_ACK_MAX])))
            case Done(refs):
                for ref in refs:
                    self._end(ref)
            case Directory(ref):
                self._end(ref)
            case Refusal(ref, code, field):
                self._totals.refused[code] += 1
                if RefusalCode(code).definite:
                    raise LostOrDoubled(f"command {ref} was refused: {RefusalCode(code).name.lower()} at {field}")

    def _end(self, ref: int) -> None:
        future = self._waiting.pop(ref, None)
        if future is not None:
            future.set_result(None)

    def _receipted(self, member: Member, receipts: Receipts) -> None:
        header = self._totals.header(receipts.header, receipts.signature)
        for entry in receipts.entries:
            submit = self._submits.get(entry.ref)
            if submit is None or entry.position not in submit[1]:
                continue
            envelope = submit[0][entry.position]
            hashed = sha256(envelope.body).digest()
            leaf = leaf_hash(envelope.mailbox, envelope.envelope_id, envelope.expiry, entry.number, hashed)
            verify_path(leaf, entry.leaf, header.leaf_count, entry.path, header.root)
            submit[1].discard(entry.position)
            self._totals.receipted += 1
            if not submit[1]:
                del self._submits[entry.ref]
                member.settle(entry.ref)
        self._pump()

    def _open(self, envelope_id: bytes, body: bytes) -> bytes:
        assert self._in is not None, "somebody began a session"
        start = time.thread_time_ns()
        encoded = self._in.decrypt(body, envelope_id, start // 1_000_000_000)
        self._totals.decrypt_ns += time.thread_time_ns() - start
        content = decode_content(encoded)
        if content.message_id in self.heard or content.payload != self._text:
            raise LostOrDoubled(f"{self.account} was given a chat twice, or another one than was sent")
        self.heard.add(content.message_id)
        self._totals.delivered += 1
        return content.token

    def look(self) -> None:
        """Raise what has ended this device, if anything has.

        Raises:
            LostOrDoubled: a chat came twice, or a command was refused for good.
        """
        if self._task is not None and self._task.done():
            self._task.result()

    def check(self) -> None:
        """Whether what came is what was sent.

        Raises:
            LostOrDoubled: it is not.
        """
        self.look()
        if self._sender is not None and self.heard != self._sender.sent:
            raise LostOrDoubled(f"{self.account} heard {len(self.heard)} of {len(self._sender.sent)} chats")
