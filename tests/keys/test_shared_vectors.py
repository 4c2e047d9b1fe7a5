"""tests/vectors/ratchet.json: what keys/ and any second implementation must derive (protocol.md sections 4 and 8)."""

import hashlib
import json
from typing import Any

import pytest
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from keys.agreement import decapsulate, diffie_hellman, hkdf, kem_public, x_public
from keys.chain import chain_step, hint, root_step
from keys.message import message_keys
from keys.ratchet import Ratchet
from tests.keys.make_vectors import PATH, build
from wire.hashing import hash16, keyed
from wire.padding import unpad
from wire.signing import SigningKey, verify


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(PATH.read_text())
    return loaded


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def test_file_is_what_the_code_makes(vectors: dict[str, Any]) -> None:
    assert build(vectors) == vectors


@pytest.mark.parametrize("which", [0, 1])
def test_public_keys_follow_from_the_private_ones(vectors: dict[str, Any], which: int) -> None:
    made = vectors["conversations"][which]
    for side in "ab":
        private, public = made["private"][side], made["public"][side]
        assert SigningKey(h(private["device_seed"])).public.hex() == public["device_key"]
        assert x_public(h(private["identity_private"])).hex() == public["identity_key"]
        verify(h(public["account_key"]), "device-list", h(public["device_list"]), h(public["device_list_signature"]))


def secrets(made: dict[str, Any]) -> tuple[bytes, bytes]:
    """The okm of the handshake and the sealed sender's plaintext, from the recipient's private inputs, step by step."""
    private, public = made["private"]["b"], made["public"]
    prefix = h(made["first_body_prefix"])
    ephemeral, ciphertext, sealed = prefix[:32], prefix[32:1_120], prefix[1_122:]
    signed, one_time = h(private["signed_prekey_private"]), h(private["one_time_private"])
    dh1 = diffie_hellman(signed, h(public["a"]["identity_key"]))
    shared = diffie_hellman(h(private["identity_private"]), ephemeral) + diffie_hellman(signed, ephemeral)
    if one_time:
        shared += diffie_hellman(one_time, ephemeral)
    kem_secret = decapsulate(h(private["kem_seed"]), ciphertext)
    assert kem_secret.hex() == made["kem_shared_secret"]
    shared += kem_secret
    context = hashlib.sha256(
        b"blindpost/v1/pqxdh-context\0"
        + (b"\x08" + h(public["b"]["device_key"]) + b"\x01" + h(public["b"]["identity_key"]))
        + (b"\x02" + x_public(signed))
        + (b"\x03" + x_public(one_time) if one_time else b"")
        + ((b"\x06" if one_time else b"\x07") + kem_public(h(private["kem_seed"])))
        + (b"\x04" + ephemeral + ciphertext)
    ).digest()
    salt, f = bytes(32), b"\xff" * 32
    seal_key = hkdf(f + shared, salt, b"blindpost/v1/pqxdh-seal\0" + context, 32)
    sender = crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, context, bytes(24), seal_key)
    info = b"blindpost/v1/pqxdh\0" + context
    info += b"\x01" + h(public["a"]["identity_key"]) + b"\x08" + h(public["a"]["device_key"])
    return hkdf(f + dh1 + shared, salt, info, 96), sender


@pytest.mark.parametrize("which", [0, 1])
def test_handshake_from_the_recipients_private_inputs(vectors: dict[str, Any], which: int) -> None:
    made = vectors["conversations"][which]
    okm, sender = secrets(made)
    assert okm.hex() == made["root"] + made["hk_a"] + made["nhk_b"]
    assert h(made["public"]["a"]["device_key"]) in sender
    assert h(made["public"]["a"]["device_list"]) in sender
    assert made["hints_of_hk_a"] == [hint(okm[32:64], n).hex() for n in range(10)]


@pytest.mark.parametrize("which", [0, 1])
def test_messages_follow_from_the_values_beside_them(vectors: dict[str, Any], which: int) -> None:
    made = vectors["conversations"][which]
    devices = {side: h(made["public"][side]["device_key"]) for side in "ab"}
    for number, message in enumerate(made["messages"]):
        body = h(message["body"])
        chain, key = chain_step(h(message["chain_key_before"]))
        assert (chain.hex(), key.hex()) == (message["chain_key_after"], message["message_key"])
        encryption_key, commitment = message_keys(key)
        assert commitment == body[16:48] == h(message["commitment"])
        first = number < 2
        assert body[:16] == h(made["prekey_id"] if first else message["hint"])
        assert body[48:72] == h(message["nonce"])
        header = crypto_aead_xchacha20poly1305_ietf_decrypt(
            body[72:128], body[:48], body[48:72], h(message["header_key"])
        )
        assert int.from_bytes(header[32:36], "big") == message["pn"]
        assert int.from_bytes(header[36:], "big") == message["n"]
        if message["ratchet_private_new"]:
            assert header[:32] == x_public(h(message["ratchet_private_new"]))
        offset = 128 + len(h(made["first_body_prefix"])) if first else 128
        assert body[128:offset] == (h(made["first_body_prefix"]) if first else b"")
        sender = message["sender"]
        recipient = "b" if sender == "a" else "a"
        ad = b"blindpost/v1/message\0\0\1" + devices[sender] + devices[recipient] + h(message["envelope_id"])
        padded = crypto_aead_xchacha20poly1305_ietf_decrypt(
            body[offset:], ad + body[:offset], body[48:72], encryption_key
        )
        assert unpad(padded).hex() == message["content"]


@pytest.mark.parametrize("which", [0, 1])
def test_first_root_step_of_each_side(vectors: dict[str, Any], which: int) -> None:
    made = vectors["conversations"][which]
    signed = h(made["private"]["b"]["signed_prekey_private"])
    one, two, three = made["messages"][0], made["messages"][2], made["messages"][4]
    shared = diffie_hellman(h(one["ratchet_private_new"]), x_public(signed))
    root, chain, next_header_a = root_step(h(made["root"]), shared)
    assert (root.hex(), chain.hex(), one["header_key"]) == (one["root_key"], one["chain_key_before"], made["hk_a"])
    shared = diffie_hellman(h(two["ratchet_private_new"]), x_public(h(one["ratchet_private_new"])))
    root, chain, _ = root_step(root, shared)
    assert (root.hex(), chain.hex(), two["header_key"]) == (two["root_key"], two["chain_key_before"], made["nhk_b"])
    assert three["header_key"] == next_header_a.hex()


def test_recipient_opens_the_bodies_of_the_file(vectors: dict[str, Any]) -> None:
    """The ratchet itself, begun from the recipient's side of the file, opens what the file's sender sent."""
    made = vectors["conversations"][0]
    signed = h(made["private"]["b"]["signed_prekey_private"])
    b = Ratchet.responder(h(made["root"]), h(made["hk_a"]), h(made["nhk_b"]), signed, bytes)
    devices = h(made["public"]["a"]["device_key"]) + h(made["public"]["b"]["device_key"])
    offset = 128 + len(h(made["first_body_prefix"]))
    for message in reversed(made["messages"][:2]):
        ad = b"blindpost/v1/message\0\0\1" + devices + h(message["envelope_id"])
        assert b.decrypt(h(message["body"]), ad, offset, 0, first=True).hex() == message["content"]


def test_chunks_follow_from_the_file_key(vectors: dict[str, Any]) -> None:
    large = vectors["large_message"]
    file_key = h(large["file_key"])
    for chunk in large["chunks"]:
        index = chunk["index"].to_bytes(4, "big")
        token = keyed(file_key, b"bp1-chunk-token", index, 16)
        assert token.hex() == chunk["token"]
        assert hash16("envelope-id", token).hex() == chunk["envelope_id"]
        assert keyed(file_key, b"bp1-chunk-hint", index, 16).hex() == chunk["hint"]
        assert keyed(file_key, b"bp1-chunk-key", index, 32).hex() == chunk["message_key"]
