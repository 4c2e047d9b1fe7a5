"""Signed notes and checkpoints, against published keys and notes, and against what a hostile log could write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_seed_keypair

from wire.errors import BlindpostError, FormatError, SignatureError
from wire.note import Checkpoint, NoteKey, NoteSigner, open_checkpoint, open_note, sign_checkpoint

ORIGIN = "relay.example/log"
SIGNER = NoteSigner(ORIGIN, *crypto_sign_seed_keypair(bytes(range(32))))
KEY = SIGNER.key
POINT = Checkpoint(ORIGIN, 3, b"r" * 32)
NOTE = sign_checkpoint(POINT, SIGNER)
# The example of Go's golang.org/x/mod/sumdb/note, and the key of Go's checksum database.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANNS_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
GO_DATABASE = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_published_keys_and_the_published_note_are_read() -> None:
    assert NoteKey.from_text(GO_DATABASE).text == GO_DATABASE
    assert open_note(NEUMANNS_NOTE, NoteKey.from_text(NEUMANN)).endswith("your problem is.\n")
    with pytest.raises(SignatureError):
        open_note(NEUMANNS_NOTE.replace("answer", "Answer"), NoteKey.from_text(NEUMANN))


def test_a_checkpoint_is_read_back_as_text_or_bytes() -> None:
    assert open_checkpoint(NOTE, KEY) == POINT
    assert open_checkpoint(NOTE.encode(), NoteKey.from_text(KEY.text)) == POINT
    assert Checkpoint(ORIGIN, 0, b"r" * 32).text.split("\n")[1] == "0"


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_back(size: int, root: bytes) -> None:
    point = Checkpoint(ORIGIN, size, root)
    assert open_checkpoint(sign_checkpoint(point, SIGNER), KEY) == point


def test_other_signatures_are_ignored_and_one_of_the_key_that_is_false_refuses_the_note() -> None:
    witness = NoteSigner("witness.example", *crypto_sign_seed_keypair(bytes(32)))
    later = NoteSigner(ORIGIN, *crypto_sign_seed_keypair(b"\x01" * 32))
    lines = witness.line(POINT.text), later.line(POINT.text)
    assert open_checkpoint(NOTE + "".join(lines), KEY) == POINT
    assert open_checkpoint(POINT.text + "\n" + "".join(lines) + SIGNER.line(POINT.text), KEY) == POINT
    with pytest.raises(SignatureError):
        open_checkpoint(POINT.text + "\n" + "".join(lines), KEY)
    with pytest.raises(SignatureError):
        open_checkpoint(NOTE + SIGNER.line("other\n"), KEY)


@given(st.data())
def test_attack_any_changed_character_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(NOTE) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda character: character != NOTE[at]))
    with pytest.raises(BlindpostError):
        open_checkpoint(NOTE[:at] + other + NOTE[at + 1 :], KEY)


@given(st.integers(0, len(NOTE) - 1))
def test_attack_any_cut_is_refused(size: int) -> None:
    with pytest.raises(BlindpostError):
        open_checkpoint(NOTE[:size], KEY)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n03\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n+3\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n٣\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n{'9' * 40}\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n{2**63}\n{'cnJy' * 10}cnI=\n",
        f"{ORIGIN}\n3\n{'cnJy' * 10}\n",
        f"{ORIGIN}\n3\n!\n",
        f"{ORIGIN}\n3\n{'cnJy' * 10}cnI=\nextension\n",
        f"{ORIGIN}\n3\n",
        f"{ORIGIN}\n",
        f"other.example\n3\n{'cnJy' * 10}cnI=\n",
    ],
)
def test_attack_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        open_checkpoint(f"{text}\n{SIGNER.line(text)}", KEY)


@pytest.mark.parametrize(
    "note",
    [
        b"\xff\n\n\xe2\x80\x94 a b\n",
        "text\x00\n\n— a b\n",
        "text\n\n- a b\n",
        "text\n\n— a\n",
        "text\n\n— a !!\n",
        "text\n— a AAAA\n",
        "text\n\n— a AAAA",
        "text\n\n",
        "x" * 70_000,
        "text\n\n" + "— a AAAA\n" * 65,
    ],
)
def test_attack_what_is_no_note_is_refused(note: str | bytes) -> None:
    with pytest.raises(FormatError):
        open_note(note, KEY)


def test_attack_a_signature_of_another_length_is_refused() -> None:
    import base64

    line = f"— {ORIGIN} {base64.b64encode(KEY.key_id + bytes(63)).decode()}\n"
    with pytest.raises(SignatureError):
        open_note(f"{POINT.text}\n{line}", KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\n", "x" * 255])
def test_a_name_that_no_note_can_hold_is_refused(name: str) -> None:
    with pytest.raises(FormatError):
        NoteKey(name, KEY.public)
    with pytest.raises(FormatError):
        Checkpoint(name, 0, bytes(32))


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+00000000", KEY.text.replace("+1", "+2", 1) + "A", "name+00000000+AgAA", f"x{KEY.text}"],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        NoteKey.from_text(text)


def test_the_log_signs_only_its_own_checkpoints_and_shows_no_secret() -> None:
    with pytest.raises(FormatError, match="origin"):
        sign_checkpoint(Checkpoint("other.example", 1, bytes(32)), SIGNER)
    for size, root in ((-1, bytes(32)), (2**63, bytes(32)), (1, bytes(31))):
        with pytest.raises(FormatError):
            Checkpoint(ORIGIN, size, root)
    with pytest.raises(FormatError):
        NoteKey(ORIGIN, bytes(31))
    assert bytes(range(32)).hex() not in repr(SIGNER)
    assert "redacted" in repr(SIGNER)
