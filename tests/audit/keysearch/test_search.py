"""Each kind of key, in each form, is found where a relay keeps it, and nothing else is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl import bindings

from audit.keysearch import Coverage, Form, KeyKind, KeySearchError, KeySearchSettings
from audit.keysearch.sections import HEAP
from audit.store import Store
from tests.audit.honest import NOW, HonestRelay, keyed
from tests.audit.keysearch.keeping import add_prekey, chain_before, image_with, searched


@pytest.fixture
def relay() -> HonestRelay:
    return HonestRelay(people=3, one_time_prekeys=1)


def hits_of(coverage: Coverage) -> list[tuple[int, KeyKind, str]]:
    return [(hit.offset, hit.kind, hit.form) for hit in coverage.leaks]


def message_key(relay: HonestRelay) -> bytes:
    letter = relay.write(b"strictly between us")
    relay.commit(letter)
    return letter.message_key


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def noise(length: int) -> bytes:
    """Text that compresses: what a key stands among in a log or a document."""
    return b'{"request": 4711, "device": "handheld", "attempt": 3, "key": "' * (length // 60)


KEEPERS: dict[KeyKind, Callable[[HonestRelay], bytes]] = {
    KeyKind.MESSAGE: message_key,
    KeyKind.CHAIN: lambda relay: chain_before(relay, 8)[0],
    KeyKind.X25519: lambda relay: relay.people[0].dh_secret,
    KeyKind.ED25519: lambda relay: relay.people[1].account_key.seed,
    KeyKind.ML_KEM: lambda relay: add_prekey(relay)[1],
}
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hexadecimal": lambda key: b"key=" + key.hex().upper().encode(),
    "base64": lambda key: base64.b64encode(b"ab" + key + b"c"),
    "base64 ": lambda key: base64.urlsafe_b64encode(key).rstrip(b"="),
    "zlib or gzip": lambda key: zlib.compress(noise(400) + key + noise(400)),
    "zlib or gzip ": lambda key: gzip.compress(noise(400) + key),
    "raw deflate": lambda key: deflated(noise(400) + key + noise(400)),
    "zlib or gzip, in it hexadecimal": lambda key: zlib.compress(json.dumps({"key": key.hex()}).encode() * 3),
    "base64, in it zlib or gzip": lambda key: base64.b64encode(zlib.compress(noise(400) + key + noise(400))),
    "base64, in it raw deflate": lambda key: base64.b64encode(deflated(noise(400) + key + noise(400))),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KEEPERS, ids=lambda kind: kind.name)
def test_a_key_that_the_relay_keeps_is_found_at_its_place(
    relay: HonestRelay, tmp_path: Path, kind: KeyKind, form: str
) -> None:
    kept = FORMS[form](KEEPERS[kind](relay))
    _, place = image_with(relay, b"an honest object", kept)
    coverage = searched(relay, tmp_path, kinds=frozenset({kind}))
    found = [hit for hit in hits_of(coverage) if hit[2] == form.strip()]
    assert [hit[1] for hit in found] == [kind]
    assert place <= found[0][0] < place + len(kept)
    assert not coverage.declared


def test_an_honest_relay_holds_only_its_own_signing_key(relay: HonestRelay, tmp_path: Path) -> None:
    relay.story()
    (place,) = image_with(relay, relay.signing_key.seed)
    coverage = searched(relay, tmp_path, sections=None, kinds=frozenset({KeyKind.CHAIN, KeyKind.ED25519}))
    assert [(hit.offset, hit.kind, hit.declared) for hit in coverage.declared] == [(place, KeyKind.ED25519, True)]
    assert coverage.declared_count == 1
    assert coverage.leaks == ()
    assert coverage.leak_count == 0
    assert not coverage.whole
    assert KeySearchSettings().whole
    assert {section.name for section in coverage.sections} >= {HEAP, "log", "configuration", "store, ciphertext"}


def test_copies_of_a_key_that_is_allowed_hide_no_other(relay: HonestRelay, tmp_path: Path) -> None:
    image_with(relay, *[bytes(8) + relay.signing_key.seed + relay.draw(8) for _ in range(150)], message_key(relay))
    coverage = searched(relay, tmp_path)
    assert coverage.declared_count >= 1
    assert [hit.kind for hit in coverage.leaks] == [KeyKind.MESSAGE]


class TestChains:
    def test_the_step_is_told(self, relay: HonestRelay, tmp_path: Path) -> None:
        chain, _ = chain_before(relay, 3)
        image_with(relay, chain)
        coverage = searched(relay, tmp_path)
        assert "envelopes row 1, after 3 steps" in coverage.leaks[0].text

    def test_a_chain_key_nine_steps_before_is_out_of_reach(self, relay: HonestRelay, tmp_path: Path) -> None:
        """The limit that the claim states: it opens the body, and the search does not see it."""
        chain, letter = chain_before(relay, 9)
        image_with(relay, chain)
        assert searched(relay, tmp_path / "nine").leaks == ()
        nearer = keyed(chain, "bp1-chain", b"", 64)[:32]
        image_with(relay, nearer)
        (hit,) = searched(relay, tmp_path / "eight").leaks
        assert hit.whose == f"envelopes row {letter.commit_index}, after 8 steps"


class TestOtherKinds:
    def test_a_file_key(self, relay: HonestRelay, tmp_path: Path) -> None:
        file_key = relay.draw(32)
        letter = relay.write(b"a chunk" * 100, kind="chunk", message_key=keyed(file_key, "bp1-chunk-key", bytes(4), 32))
        letter.body = keyed(file_key, "bp1-chunk-hint", b"\0\0\0\3", 16) + letter.body[16:]
        relay.commit(letter)
        (place,) = image_with(relay, file_key)
        assert hits_of(searched(relay, tmp_path)) == [(place, KeyKind.FILE, "raw")]

    def test_a_header_key_within_the_first_hints(self, relay: HonestRelay, tmp_path: Path) -> None:
        header_key, letter = relay.draw(32), relay.write(b"x")
        letter.body = keyed(header_key, "bp1-hint", (1).to_bytes(8, "big"), 64)[48:] + letter.body[16:]
        relay.commit(letter)
        (place,) = image_with(relay, header_key)
        assert hits_of(searched(relay, tmp_path)) == [(place, KeyKind.HEADER, "raw")]

    def test_the_ephemeral_key_of_a_first_message(self, relay: HonestRelay, tmp_path: Path) -> None:
        secret, letter = relay.draw(32), relay.write(b"x", kind="first")
        letter.body = letter.body[:128] + bindings.crypto_scalarmult_base(secret) + letter.body[160:]
        relay.commit(letter)
        image_with(relay, secret)
        (hit,) = searched(relay, tmp_path).leaks
        assert (hit.kind, hit.whose) == (KeyKind.X25519, "the ephemeral key of envelopes row 1")

    def test_the_scalar_of_an_ed25519_key(self, relay: HonestRelay, tmp_path: Path) -> None:
        """A key that was kept expanded has no seed any more; its scalar is an X25519 key."""
        scalar = hashlib.sha512(relay.people[0].device_key.seed).digest()[:32]
        image_with(relay, scalar)
        (hit,) = searched(relay, tmp_path).leaks
        assert hit.kind is KeyKind.X25519
        assert hit.whose == f"a device key of {relay.people[0].account}, expanded"

    @pytest.mark.parametrize("kind", ["ordinary", "first", "chunk"])
    def test_a_content_key_before_its_commitment(self, relay: HonestRelay, tmp_path: Path, kind: str) -> None:
        """What section 4.2 derives at once, as a program may keep it, at no alignment."""
        letter = relay.write(b"x", kind=kind)
        relay.commit(letter)
        (place,) = image_with(relay, b"abc" + keyed(letter.message_key, "bp1-message", b"", 64))
        coverage = searched(relay, tmp_path)
        assert hits_of(coverage) == [(place + 3, KeyKind.CONTENT, "raw")]
        assert "opens envelopes row 1" in coverage.leaks[0].text

    def test_a_commitment_alone_is_no_key(self, relay: HonestRelay, tmp_path: Path) -> None:
        letter = relay.write(b"x")
        relay.commit(letter)
        image_with(relay, relay.draw(32) + letter.body[16:48], letter.body)
        assert searched(relay, tmp_path).leaks == ()

    def test_keys_of_volunteered_lists_are_known(self, relay: HonestRelay, tmp_path: Path) -> None:
        other = HonestRelay(seed=9).people[0]
        image_with(relay, other.dh_secret)
        assert searched(relay, tmp_path / "without").leaks == ()
        coverage = searched(relay, tmp_path / "with", items=[[6, relay.signed_list(other)]])
        assert [hit.kind for hit in coverage.leaks] == [KeyKind.X25519]


class TestPlaces:
    @pytest.mark.parametrize(("alignment", "shift", "found"), [(8, 8, 1), (8, 4, 0), (4, 4, 1), (4, 1, 0), (1, 1, 1)])
    def test_alignment_is_what_was_asked(
        self, relay: HonestRelay, tmp_path: Path, alignment: int, shift: int, found: int
    ) -> None:
        image_with(relay, bytes(shift) + message_key(relay))
        assert searched(relay, tmp_path, alignment=alignment).leak_count == found

    def test_a_seed_with_its_public_key_is_found_at_any_alignment(self, relay: HonestRelay, tmp_path: Path) -> None:
        """The 64 bytes of libsodium."""
        key = relay.people[0].device_key
        (place,) = image_with(relay, b"\0\0\0" + bindings.crypto_sign_seed_keypair(key.seed)[1])
        assert hits_of(searched(relay, tmp_path)) == [(place + 3, KeyKind.ED25519, "raw")]

    def test_a_key_across_two_blocks(self, relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audit.keysearch.sections.BLOCK_BYTES", 1_024)
        seed = add_prekey(relay)[1]
        image = bytes(8_176) + message_key(relay) + bytes(2_000) + bytes(8) + seed + bytes(8_152 - 64)
        relay.image = lambda: image + bytes(-len(image) % 4_096)  # type: ignore[method-assign]
        kinds = [hit.kind for hit in searched(relay, tmp_path).leaks]
        assert kinds == [KeyKind.MESSAGE, KeyKind.ML_KEM]

    def test_in_log_and_configuration_every_byte_begins_a_window(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.log_suffix = b"\1" + message_key(relay) + b"\n"
        coverage = searched(relay, tmp_path, sections=frozenset({"log", "configuration"}))
        (hit,) = coverage.leaks
        assert (hit.path, hit.section, hit.kind) == ("log/relay.log", "log", KeyKind.MESSAGE)
        assert hit.where.startswith("log/relay.log, byte ")

    def test_a_key_in_ciphertext(self, relay: HonestRelay, tmp_path: Path) -> None:
        """A body that carries another's key: every alignment finds it, if every byte is tried."""
        key, letter = message_key(relay), relay.write(b"x")
        letter.body = letter.body[:200] + key + letter.body[232:]
        relay.commit(letter)
        coverage = searched(relay, tmp_path, sections=frozenset({"store, ciphertext"}), alignment=1)
        assert [(hit.kind, hit.section) for hit in coverage.leaks] == [(KeyKind.MESSAGE, "store, ciphertext")]

    def test_a_store_that_cannot_be_read_is_searched_all_the_same(self, relay: HonestRelay, tmp_path: Path) -> None:
        image_with(relay, b"nothing")
        relay.disclose(tmp_path / "d")
        (tmp_path / "d/store/store.sqlite").write_bytes(bytes(64) + relay.people[0].dh_secret + bytes(4_000))
        from audit.case import open_case
        from audit.disclosure import Disclosure
        from audit.keysearch import search_keys
        from audit.material import read_material

        own = relay.people[0]
        lists = read_material([relay.volunteer([[6, relay.signed_list(own)]])], [], [])
        with Disclosure(tmp_path / "d") as disclosure:
            coverage = search_keys(open_case(disclosure, None, lists), KeySearchSettings(workers=1))
        assert [(hit.section, hit.kind) for hit in coverage.leaks] == [("store, not readable", KeyKind.X25519)]


class TestFigures:
    def test_windows_are_tried_or_left_out_for_a_reason(self, relay: HonestRelay, tmp_path: Path) -> None:
        noise = relay.draw(4_096)
        image_with(relay, noise, noise)
        coverage = searched(relay, tmp_path)
        sections = {section.name: section for section in coverage.sections}
        size = sum(section.bytes_searched for section in sections.values())
        assert size == len(relay.image())
        assert all(
            section.windows == section.tried + section.regular + section.repeated for section in sections.values()
        )
        assert sum(section.repeated for section in sections.values()) >= (4_096 - 32) // 8
        assert coverage.windows >= size // 8 - 8

    def test_several_processes_give_the_figures_of_one(self, relay: HonestRelay, tmp_path: Path) -> None:
        relay.story()
        image_with(relay, relay.draw(20_000), relay.people[0].dh_secret, base64.b64encode(relay.people[1].dh_secret))
        kinds = frozenset({KeyKind.MESSAGE, KeyKind.X25519})
        one = searched(relay, tmp_path / "one", sections=None, kinds=kinds)
        two = searched(relay, tmp_path / "two", sections=None, kinds=kinds, workers=2)
        assert one == two
        assert one.leak_count >= 2

    def test_progress_ends_with_all_bytes(self, relay: HonestRelay, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        searched(relay, tmp_path, progress=lambda done, total: told.append((done, total)))
        assert told[0][0] == 0
        assert told[-1][0] == told[-1][1] == len(relay.image())

    def test_a_bomb_is_cut_off_and_counted(self, relay: HonestRelay, tmp_path: Path) -> None:
        image_with(relay, zlib.compress(bytes(64 * 1024 * 1024), 9))
        coverage = searched(relay, tmp_path, kinds=frozenset({KeyKind.MESSAGE}))
        assert sum(section.left_out for section in coverage.sections) >= 1

    def test_a_form_with_too_many_windows_is_cut_off_and_counted(
        self, relay: HonestRelay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("audit.keysearch.search.DECODED_WINDOWS_MAX", 100)
        key = message_key(relay)
        image_with(relay, relay.draw(400).hex().encode() + key.hex().encode())
        kinds = frozenset({KeyKind.MESSAGE})
        assert searched(relay, tmp_path / "bounded", kinds=kinds).leak_count == 0
        assert sum(section.left_out for section in searched(relay, tmp_path / "b", kinds=kinds).sections) > 100
        thorough = searched(relay, tmp_path / "thorough", kinds=kinds, unbounded=True)
        assert thorough.leak_count == 1
        assert sum(section.left_out for section in thorough.sections) == 0

    def test_a_document_has_no_key(self, relay: HonestRelay, tmp_path: Path) -> None:
        key = message_key(relay)
        image_with(relay, key)
        coverage = searched(relay, tmp_path)
        shown = json.dumps(coverage.document()) + repr(coverage)
        assert key.hex() not in shown
        assert repr(key)[2:-1] not in shown
        document: Any = coverage.document()
        assert document["keys_found"] == 1

    @pytest.mark.parametrize(("name", "value"), [("alignment", 2), ("alignment", 0), ("workers", 0), ("workers", 65)])
    def test_settings_that_make_no_sense_are_refused(self, name: str, value: int) -> None:
        with pytest.raises(KeySearchError, match=name):
            KeySearchSettings(**{name: value})  # type: ignore[arg-type]

    def test_forms_that_were_not_asked_for_are_not_searched(self, relay: HonestRelay, tmp_path: Path) -> None:
        key = message_key(relay)
        image_with(relay, key, base64.b64encode(key))
        coverage = searched(relay, tmp_path, forms=frozenset({Form.BASE64}))
        assert [hit.form for hit in coverage.leaks] == ["base64"]
        assert not coverage.whole


def test_the_store_has_what_targets_need() -> None:
    """Targets and sections are built from these; a store that streams must keep them."""
    assert {"envelopes", "tables", "body", "outside_ciphertext"} <= set(dir(Store)) | set(Store.__annotations__)
    assert NOW
