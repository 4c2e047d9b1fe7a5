"""The Double Ratchet with header encryption (protocol.md sections 4.2 and 4.3; Signal, *The Double Ratchet
Algorithm*, revision 1, section 4).

The state machine of one session: it makes bodies and opens them. It leaves to keys/session.py which devices speak and
how the session began, to keys/chain.py the derivations, to keys/hints.py the index over many sessions, and to the
caller all time and storage.

Rules:

* state moves only after authentication: `decrypt` plans every change in local values (`_plan`) and stores them after
  the content has verified (`_commit`); an error therefore leaves `to_bytes()` as it was;
* a message key is used once: sending advances the chain in the same call, receiving erases the key in `_commit`;
* the sending half of a Diffie-Hellman step waits for the next message to send. On the wire nothing differs, the private
  ratchet key is erased at receipt instead of kept, and a peer that only reads pays for half the steps;
* skipped keys: at most 1,000 in a gap, 2,000 a session (the oldest go first), 7 days.

Names follow the specification: RK root, CKs and CKr chain_send and chain_receive, HKs and HKr header_send and
header_receive, NHKs and NHKr next_header_send and next_header_receive, Ns, Nr, PN n_send, n_receive, previous_n.
"""

from struct import Struct as Layout
from typing import Annotated, Final, NamedTuple

from msgspec import Meta
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError

from keys.agreement import Entropy, diffie_hellman, draw, x_public
from keys.chain import Skipped, chain_step, hint, hint_block, root_step, skip_keys
from keys.errors import AuthenticationFailed, HeaderUnknown, MessageKeyGone
from keys.message import (
    NONCE_BYTES,
    aead_open,
    aead_seal,
    check_body,
    check_content,
    message_keys,
    open_content,
    seal_content,
)
from wire.codec import U32, U64, Id, Key, SecretRecord, decode, encode
from wire.errors import FormatError
from wire.limits import (
    KEY_BYTES,
    SKIPPED_KEYS_PER_SESSION_MAX,
    SKIPPED_KEYS_S,
    UINT32_MAX,
)

__all__ = ["Ratchet"]

_HEADER: Final = Layout(">32sII")  # ratchet key ‖ u32(pn) ‖ u32(n)
NONE: Final = b""


class _Turn(NamedTuple):
    """A new chain of the peer: what a Diffie-Hellman step on receipt changes."""

    root: bytes
    remote: bytes
    header: bytes
    next_header: bytes


class _Plan(NamedTuple):
    """All that one received message will change, once it has verified."""

    message_key: bytes
    skipped_hint: bytes  # the skipped key that it uses; empty for a message of a chain
    turn: _Turn | None
    chain: bytes
    n: int
    skipped: dict[bytes, Skipped] | None


OptionalKey = Annotated[bytes, Meta(max_length=KEY_BYTES)]


class _State(SecretRecord, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    root: Key
    ratchet_private: OptionalKey
    ratchet_public: OptionalKey
    remote: OptionalKey
    header_send: OptionalKey
    chain_send: OptionalKey
    n_send: U32
    previous_n: U32
    next_header_send: Key
    header_receive: OptionalKey
    chain_receive: OptionalKey
    n_receive: U32
    next_header_receive: Key
    skipped: bytes


class _SkippedRow(SecretRecord, frozen=True):
    hint: Id
    header_key: Key
    n: U32
    message_key: Key
    stored_s: U64


class Ratchet:
    """One side of a Double Ratchet. Made by `initiator`, `responder` or `from_bytes`."""

    __slots__ = (
        "_entropy",
        "_hint_next",
        "_hints_receive",
        "_hints_send",
        "_skipped_bytes",
        "chain_receive",
        "chain_send",
        "header_receive",
        "header_send",
        "n_receive",
        "n_send",
        "next_header_receive",
        "next_header_send",
        "previous_n",
        "ratchet_private",
        "ratchet_public",
        "remote",
        "root",
        "skipped",
    )

    def __init__(
        self,
        *,
        root: bytes,
        next_header_send: bytes,
        next_header_receive: bytes,
        entropy: Entropy,
        remote: bytes = NONE,
        ratchet_private: bytes = NONE,
    ) -> None:
        self._entropy = entropy
        self.root = root
        self.ratchet_private = ratchet_private
        self.ratchet_public = NONE
        self.remote = remote
        self.header_send = self.chain_send = NONE
        self.n_send = self.previous_n = self.n_receive = 0
        self.next_header_send = next_header_send
        self.header_receive = self.chain_receive = NONE
        self.next_header_receive = next_header_receive
        self.skipped: dict[bytes, Skipped] = {}
        self._skipped_bytes: bytes | None = None
        self._hints_send = self._hints_receive = (-1, NONE)
        self._hint_next = NONE

    def __repr__(self) -> str:
        return (
            f"Ratchet(n_send={self.n_send}, n_receive={self.n_receive}, previous_n={self.previous_n}, "
            f"skipped={len(self.skipped)}, keys=<redacted>)"
        )

    # ------------------------------------------------------------------ making one

    @classmethod
    def initiator(
        cls, root: bytes, header_send: bytes, next_header_receive: bytes, remote: bytes, entropy: Entropy
    ) -> "Ratchet":
        """A's side: `remote` is SPK_B; the first sending step is taken with the first message (RatchetInitAliceHE)."""
        # HKs = hk_a is what the first step moves from "next" to "current".
        return cls(
            root=root,
            next_header_send=header_send,
            next_header_receive=next_header_receive,
            remote=remote,
            entropy=entropy,
        )

    @classmethod
    def responder(
        cls, root: bytes, next_header_receive: bytes, next_header_send: bytes, prekey_private: bytes, entropy: Entropy
    ) -> "Ratchet":
        """B's side: `prekey_private` is the private half of SPK_B (RatchetInitBobHE)."""
        return cls(
            root=root,
            next_header_send=next_header_send,
            next_header_receive=next_header_receive,
            ratchet_private=prekey_private,
            entropy=entropy,
        )

    # ------------------------------------------------------------------ sending

    def encrypt(self, content: bytes, associated: bytes, prekey_id: bytes = NONE, prefix: bytes = NONE) -> bytes:
        """The body of the next message. The state has moved when this returns: make it durable before the body leaves.

        Args:
            content: the content structure, at most 65,536 bytes.
            associated: the associated data up to and with the envelope id.
            prekey_id: 16 bytes in the hint's place, in first bodies.
            prefix: EK ‖ CT ‖ u16(len(sealed)) ‖ sealed, in first bodies.

        Raises:
            FormatError: content too large, or the chain is at its end (2^32 messages). Nothing has moved.
        """
        check_content(content)
        if not self.chain_send:
            self._take_sending_step()
        n = self.n_send
        if n >= UINT32_MAX:
            raise FormatError("n", "the chain is at its end", UINT32_MAX)
        chain, message_key = chain_step(self.chain_send)
        encryption_key, commitment = message_keys(message_key)
        slot = prekey_id or self._hint_send(n)
        nonce = draw(self._entropy, NONCE_BYTES)
        start = slot + commitment
        header = aead_seal(
            self.ratchet_public + self.previous_n.to_bytes(4, "big") + n.to_bytes(4, "big"),
            start,
            nonce,
            self.header_send,
        )
        start += nonce + header + prefix
        body = start + seal_content(encryption_key, associated + start, nonce, content)
        self.chain_send = chain
        self.n_send = n + 1
        return body

    def _take_sending_step(self) -> None:
        private = draw(self._entropy, KEY_BYTES)
        root, chain, next_header = root_step(self.root, diffie_hellman(private, self.remote))
        public = x_public(private)
        self.root = root
        self.ratchet_private, self.ratchet_public = private, public
        self.previous_n, self.n_send = self.n_send, 0
        self.chain_send = chain
        self.header_send, self.next_header_send = self.next_header_send, next_header
        self._hints_send = (-1, NONE)

    def _hint_send(self, n: int) -> bytes:
        block, hints = self._hints_send
        if block != n >> 2:
            hints = hint_block(self.header_send, n >> 2)
            self._hints_send = (n >> 2, hints)
        start = 16 * (n & 3)
        return hints[start : start + 16]

    # ------------------------------------------------------------------ receiving

    def decrypt(self, body: bytes, associated: bytes, offset: int, now_s: int, *, first: bool = False) -> bytes:
        """The content of a body, and the state moved past it.

        Args:
            body: the body.
            associated: the associated data up to and with the envelope id.
            offset: where the content begins.
            now_s: Unix time in seconds, for the age of skipped keys.
            first: whether the body has a prekey id where ordinary ones have the hint.

        Raises:
            DecryptionError: does not open; nothing has moved.
            FormatError: lengths or padding; nothing has moved.
        """
        plan = self._plan(body, now_s, first)
        content = open_content(plan[0], body, associated, offset)
        self._commit(plan, now_s)
        return content

    def message_key_of(self, body: bytes, now_s: int, *, first: bool = False) -> bytes:
        """The message key that `decrypt` would use; no state moves. It opens that one body only.

        Raises:
            DecryptionError: the body is not of this session, or its key is erased.
        """
        return self._plan(body, now_s, first).message_key

    def _plan(self, body: bytes, now_s: int, first: bool) -> _Plan:
        check_body(body)
        slot = body[:16]
        if not first and self.skipped and slot in self.skipped:
            return self._plan_skipped(slot, body, now_s)
        start, nonce, sealed = body[:48], body[48:72], body[72:128]
        opened = NONE
        turning = False
        # The hint of a next chain's first message saves the failing try of the current key; tags decide all the same.
        if self.header_receive and slot != self._first_hint_of_next():
            opened = _try_header(sealed, start, nonce, self.header_receive)
        if not opened:
            opened = _try_header(sealed, start, nonce, self.next_header_receive)
            if not opened:
                if first and self.skipped:
                    return self._plan_first_skipped(body, now_s)
                raise HeaderUnknown
            turning = True
        remote, previous_n, n = _HEADER.unpack(opened)
        if turning:
            return self._plan_turn(slot, remote, previous_n, n, now_s, first)
        if remote != self.remote:
            raise AuthenticationFailed("ratchet key of the chain")
        if n < self.n_receive:
            if first:
                skipped_hint = hint(self.header_receive, n)
                if skipped_hint in self.skipped:
                    return self._plan_skipped(skipped_hint, body, now_s)
            raise MessageKeyGone(n)
        if not first and slot != self._hint_receive(n):
            raise AuthenticationFailed("hint")
        if n == self.n_receive:
            chain, message_key = chain_step(self.chain_receive)
            return _Plan(message_key, NONE, None, chain, n + 1, None)
        chain, skipped = skip_keys(self.header_receive, self.chain_receive, self.n_receive, n, now_s)
        chain, message_key = chain_step(chain)
        return _Plan(message_key, NONE, None, chain, n + 1, skipped)

    def _first_hint_of_next(self) -> bytes:
        if not self._hint_next:
            # A cache of a function of the next header key, not state.
            self._hint_next = hint(self.next_header_receive, 0)
        return self._hint_next

    def _plan_turn(self, slot: bytes, remote: bytes, previous_n: int, n: int, now_s: int, first: bool) -> _Plan:
        if not self.ratchet_private:
            # The peer can only step after it has seen our ratchet key, and we have sent none since its last one.
            raise AuthenticationFailed("ratchet key out of turn")
        header = self.next_header_receive
        if not first and slot != hint(header, n):
            raise AuthenticationFailed("hint")
        skipped: dict[bytes, Skipped] = {}
        if self.chain_receive:
            if previous_n < self.n_receive:
                raise AuthenticationFailed("pn")
            if previous_n > self.n_receive:
                _, skipped = skip_keys(self.header_receive, self.chain_receive, self.n_receive, previous_n, now_s)
        elif previous_n:
            raise AuthenticationFailed("pn")
        root, chain, next_header = root_step(self.root, diffie_hellman(self.ratchet_private, remote))
        if n:
            chain, more = skip_keys(header, chain, 0, n, now_s)
            skipped |= more
        chain, message_key = chain_step(chain)
        return _Plan(message_key, NONE, _Turn(root, remote, header, next_header), chain, n + 1, skipped or None)

    def _plan_skipped(self, slot: bytes, body: bytes, now_s: int) -> _Plan:
        entry = self.skipped[slot]
        opened = aead_open(body[72:128], body[:48], body[48:72], entry.header_key, "header")
        n = int.from_bytes(opened[36:], "big")
        if n != entry.n:
            raise AuthenticationFailed("hint")
        if entry.stored_s + SKIPPED_KEYS_S < now_s:
            raise MessageKeyGone(n)
        return _Plan(entry.message_key, slot, None, NONE, n, None)

    def _plan_first_skipped(self, body: bytes, now_s: int) -> _Plan:
        """A first body of a chain that the peer has left since: it has no hint, so its header keys are tried."""
        for header_key in dict.fromkeys(entry.header_key for entry in self.skipped.values()):
            opened = _try_header(body[72:128], body[:48], body[48:72], header_key)
            if opened:
                n = int.from_bytes(opened[36:], "big")
                slot = hint(header_key, n)
                if slot not in self.skipped:
                    raise MessageKeyGone(n)
                return self._plan_skipped(slot, body, now_s)
        raise HeaderUnknown

    def _commit(self, plan: _Plan, now_s: int) -> None:
        _, skipped_hint, turn, chain, n, skipped = plan
        if skipped_hint:
            del self.skipped[skipped_hint]
            self._skipped_bytes = None
        else:
            if turn is not None:
                self.root, self.remote, self.header_receive, self.next_header_receive = turn
                self.ratchet_private = self.ratchet_public = NONE
                self.chain_send = self.header_send = NONE
                self._hints_receive = (-1, NONE)
                self._hint_next = NONE
            self.chain_receive = chain
            self.n_receive = n
        if skipped:
            self.skipped |= skipped
            self._skipped_bytes = None
            while len(self.skipped) > SKIPPED_KEYS_PER_SESSION_MAX:
                del self.skipped[next(iter(self.skipped))]
        if self.skipped:
            self.expire(now_s)

    def _hint_receive(self, n: int) -> bytes:
        block, hints = self._hints_receive
        if block != n >> 2:
            hints = hint_block(self.header_receive, n >> 2)
            # A cache of a function of the header key, not state: it may move before the content has verified.
            self._hints_receive = (n >> 2, hints)
        start = 16 * (n & 3)
        return hints[start : start + 16]

    def expire(self, now_s: int) -> list[bytes]:
        """Erase skipped keys older than 7 days; returns their hints, oldest first."""
        expired = []
        for slot, entry in self.skipped.items():
            if entry.stored_s + SKIPPED_KEYS_S >= now_s:
                break  # in order of storing
            expired.append(slot)
        for slot in expired:
            del self.skipped[slot]
        if expired:
            self._skipped_bytes = None
        return expired

    # ------------------------------------------------------------------ storage

    def secrets(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each key held now, for an owner who has them searched for (protocol.md section 12.2)."""
        named = [
            ("root key", self.root),
            ("private ratchet key", self.ratchet_private),
            ("sending chain key", self.chain_send),
            ("sending header key", self.header_send),
            ("next sending header key", self.next_header_send),
            ("receiving chain key", self.chain_receive),
            ("receiving header key", self.header_receive),
            ("next receiving header key", self.next_header_receive),
        ]
        named += [("skipped message key", entry.message_key) for entry in self.skipped.values()]
        return tuple((name, key) for name, key in named if key)

    def to_bytes(self) -> bytes:
        """The whole state, for sealed storage only. The list of skipped keys is encoded when it has changed."""
        if self._skipped_bytes is None:
            self._skipped_bytes = encode([(slot, *entry) for slot, entry in self.skipped.items()])
        return encode(
            (
                1,
                self.root,
                self.ratchet_private,
                self.ratchet_public,
                self.remote,
                self.header_send,
                self.chain_send,
                self.n_send,
                self.previous_n,
                self.next_header_send,
                self.header_receive,
                self.chain_receive,
                self.n_receive,
                self.next_header_receive,
                self._skipped_bytes,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, entropy: Entropy) -> "Ratchet":
        """What `to_bytes` wrote.

        Raises:
            FormatError: anything else.
        """
        state = decode(_State, data, "ratchet")
        for field in state.__struct_fields__[2:13]:
            value = getattr(state, field)
            if isinstance(value, bytes) and len(value) not in {0, KEY_BYTES}:
                raise FormatError(f"ratchet.{field}", f"has {len(value)} bytes", KEY_BYTES)
        rows = decode(list[_SkippedRow], state.skipped, "ratchet.skipped")
        if len(rows) > SKIPPED_KEYS_PER_SESSION_MAX:
            raise FormatError("ratchet.skipped", f"has {len(rows)} keys", SKIPPED_KEYS_PER_SESSION_MAX)
        self = cls(
            root=state.root,
            next_header_send=state.next_header_send,
            next_header_receive=state.next_header_receive,
            entropy=entropy,
            remote=state.remote,
            ratchet_private=state.ratchet_private,
        )
        self.ratchet_public = state.ratchet_public
        self.header_send, self.chain_send = state.header_send, state.chain_send
        self.n_send, self.previous_n = state.n_send, state.previous_n
        self.header_receive, self.chain_receive = state.header_receive, state.chain_receive
        self.n_receive = state.n_receive
        self.skipped = {row.hint: Skipped(row.header_key, row.n, row.message_key, row.stored_s) for row in rows}
        if len(self.skipped) != len(rows):
            raise FormatError("ratchet.skipped", "names a hint twice")
        return self


def _try_header(sealed: bytes, start: bytes, nonce: bytes, header_key: bytes) -> bytes:
    """The 40 bytes of a header, or nothing if it does not open under this key."""
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, start, nonce, header_key)
    except CryptoError:
        return NONE
