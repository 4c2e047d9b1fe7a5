"""Makes tests/vectors/ratchet.json, for second implementations to check themselves (protocol.md sections 2.5, 4, 8).

    python -m tests.keys.make_vectors

Private keys, ephemeral keys and nonces are SHAKE-256 of names; only the ML-KEM encapsulation draws its own randomness,
so shared secret and ciphertext are inputs in the file, kept when the file is made again. `test_shared_vectors.py` makes
the file again in memory and compares, and plays the recipient from the private inputs alone.
"""

import copy
import json
from pathlib import Path
from typing import Any

from keys.agreement import encapsulate
from keys.chain import chain_step, hint
from keys.chunks import FileKey
from keys.fingerprint import safety_number
from keys.handshake import initiate
from keys.message import open_with_message_key
from keys.session import Session
from tests.keys.people import NOW_S, Person, SeededEntropy, envelope_id

PATH = Path(__file__).parent.parent / "vectors" / "ratchet.json"

SCHEDULE: tuple[tuple[str, bytes], ...] = (
    ("a", b"the first message, with the handshake"),
    ("a", b"the second, with the handshake again"),
    ("b", b"the first reply"),
    ("b", b""),
    ("a", b"an ordinary message"),
    ("a", bytes(range(256)) * 4),
    ("b", "\u0633\u0644\u0627\u0645".encode()),
)


class Tape:
    """Entropy that remembers what it gave."""

    def __init__(self, name: str) -> None:
        self._entropy = SeededEntropy(name)
        self.drawn: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self.drawn.append(self._entropy(size))
        return self.drawn[-1]


class Replay:
    """Gives what a tape will give next, without moving it: for a look at a step before it is taken."""

    def __init__(self, tape: Tape) -> None:
        self._ahead = copy.deepcopy(tape)

    def __call__(self, size: int) -> bytes:
        return self._ahead(size)


def _private(person: Person, one_time: bool) -> dict[str, str]:
    halves = person.ring.halves(person.bundle(one_time).one_time[0].id if one_time else person.upload.signed_prekey.id)
    return {
        "account_seed": person.account_key.signing.seed.hex(),
        "device_seed": person.device.signing.seed.hex(),
        "identity_private": person.device._dh_private.hex(),
        "mailbox": person.device.mailbox.hex(),
        "signed_prekey_private": halves.signed_private.hex(),
        "one_time_private": halves.one_time_private.hex(),
        "kem_seed": halves.kem_seed.hex(),
    }


def _public(person: Person) -> dict[str, str]:
    return {
        "account_key": person.account_key.public.hex(),
        "device_key": person.device.public.hex(),
        "identity_key": person.device.dh_public.hex(),
        "device_list": person.signed_list.list.hex(),
        "device_list_signature": person.signed_list.signature.hex(),
    }


def conversation(one_time: bool, kem: tuple[bytes, bytes] | None) -> dict[str, Any]:
    """One handshake and seven messages, every input and every derived value of them."""
    ana, ben = Person.make("ana"), Person.make("ben")
    bundle = ben.bundle(one_time)
    made = kem or encapsulate(bundle.one_time[0].kem_key if one_time else bundle.kem_prekey.key)
    tapes = {"a": Tape("vectors a"), "b": Tape("vectors b")}
    outbound = initiate(ana.device, ana.signed_list, ben.device.entry, bundle, Tape("vectors a"), lambda _: made)
    a = Session.initiate(ana.device, ana.signed_list, ben.device.entry, bundle, tapes["a"], lambda _: made)
    ephemeral = tapes["a"].drawn[0]
    private = {"a": _private(ana, one_time=True), "b": _private(ben, one_time)}
    for name in ("signed_prekey_private", "one_time_private", "kem_seed"):
        del private["a"][name]
    sessions = {"a": a}
    messages = []
    for number, (side, content) in enumerate(SCHEDULE):
        sender, tape = sessions[side], tapes[side]
        drawn = len(tape.drawn)
        shadow = Session.from_bytes(sender.to_bytes(), Replay(tape))
        if not shadow.ratchet.chain_send:
            shadow.ratchet._take_sending_step()
        chain_before = shadow.ratchet.chain_send
        message_key = chain_step(chain_before)[1]
        body = sender.encrypt(content, envelope_id(number))
        *ratchet_private, nonce = tape.drawn[drawn:]
        if side == "a" and "b" not in sessions:
            sessions["b"] = Session.accept(
                ben.device,
                ben.ring,
                body,
                envelope_id(number),
                NOW_S,
                check_sender=lambda inbound: None,
                entropy=tapes["b"],
            ).session
        else:
            receiver = sessions["b" if side == "a" else "a"]
            opening = receiver.message_key_of(body, envelope_id(number), NOW_S)
            assert open_with_message_key(body, envelope_id(number), opening) == content
            assert opening.message_key == message_key
            receiver.decrypt(body, envelope_id(number), NOW_S)
        ratchet = sender.ratchet
        messages.append(
            {
                "sender": side,
                "content": content.hex(),
                "envelope_id": envelope_id(number).hex(),
                "ratchet_private_new": ratchet_private[0].hex() if ratchet_private else None,
                "nonce": nonce.hex(),
                "root_key": ratchet.root.hex(),
                "chain_key_before": chain_before.hex(),
                "chain_key_after": ratchet.chain_send.hex(),
                "header_key": ratchet.header_send.hex(),
                "n": ratchet.n_send - 1,
                "pn": ratchet.previous_n,
                "hint": hint(ratchet.header_send, ratchet.n_send - 1).hex(),
                "message_key": message_key.hex(),
                "commitment": body[16:48].hex(),
                "body": body.hex(),
            }
        )
    return {
        "one_time_prekey": one_time,
        "private": private,
        "public": {"a": _public(ana), "b": _public(ben)},
        "prekey_id": outbound.prekey_id.hex(),
        "ephemeral_private": ephemeral.hex(),
        "kem_shared_secret": made[0].hex(),
        "kem_ciphertext": made[1].hex(),
        "root": outbound.secrets.root.hex(),
        "hk_a": outbound.secrets.header_a.hex(),
        "nhk_b": outbound.secrets.next_header_b.hex(),
        "first_body_prefix": outbound.prefix.hex(),
        "hints_of_hk_a": [hint(outbound.secrets.header_a, n).hex() for n in range(10)],
        "messages": messages,
    }


def chunks() -> dict[str, Any]:
    """A file key and what it gives for some chunks."""
    key = FileKey(SeededEntropy("vectors file")(32))
    ana, ben = Person.make("ana").device.public, Person.make("ben").device.public
    plain = bytes(32_768)
    body = key.seal(1, plain, ana, ben, Tape("vectors chunk"))
    return {
        "file_key": key.to_bytes().hex(),
        "chunks": [
            {
                "index": index,
                "token": key.token(index).hex(),
                "envelope_id": key.envelope_id(index).hex(),
                "hint": key.hint(index).hex(),
                "message_key": key.message_key(index).hex(),
            }
            for index in (0, 1, 2, 132)
        ],
        "chunk_1_of_32768_zeros": {
            "sender_device": ana.hex(),
            "recipient_device": ben.hex(),
            "nonce": body[48:72].hex(),
            "body_prefix": body[:72].hex(),
            "body_last_32": body[-32:].hex(),
        },
    }


def build(known: dict[str, Any] | None) -> dict[str, Any]:
    """The whole file; `known` is the one before, whose encapsulations are kept."""
    kems: list[tuple[bytes, bytes] | None] = [None, None]
    if known is not None:
        kems = [
            (bytes.fromhex(made["kem_shared_secret"]), bytes.fromhex(made["kem_ciphertext"]))
            for made in known["conversations"]
        ]
    ana, ben = Person.make("ana"), Person.make("ben")
    return {
        "about": "protocol.md sections 2.5, 4 and 8; made by python -m tests.keys.make_vectors; values in hex",
        "conversations": [conversation(one_time, kem) for one_time, kem in zip((True, False), kems, strict=True)],
        "large_message": chunks(),
        "safety_number": safety_number(
            "ana@acme.example", ana.account_key.public, "ben@acme.example", ben.account_key.public
        ),
    }


def main() -> None:
    """Write the file."""
    known = json.loads(PATH.read_text()) if PATH.exists() else None
    PATH.write_text(json.dumps(build(known), indent=1) + "\n")


if __name__ == "__main__":
    main()
