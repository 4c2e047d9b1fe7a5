"""A disclosure made to break its reader: whatever the bytes, a verdict comes out, and nothing else happens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audit
from audit import AuditError, Verdict
from audit.decoder import decode
from audit.manifest import build_key_ring, read_header, read_manifest
from audit.material import Material, read_card, read_material
from audit.report_html import render_html
from audit.report_json import render_json
from audit.report_text import render_text
from audit.store import read_store
from tests.audit.auditing import findings_of, missing_of
from tests.audit.honest import HonestRelay, pack


@pytest.fixture(scope="module")
def relay() -> HonestRelay:
    return HonestRelay(people=2, one_time_prekeys=1).story_of_two()


@pytest.fixture(scope="module")
def disclosed(relay: HonestRelay, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return relay.disclose(tmp_path_factory.mktemp("hostile") / "disclosure")


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip, cut, insert, double, or overwrite at interesting places."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        if not result:
            break
        at = draw(st.integers(0, len(result) - 1))
        what = draw(st.sampled_from(["flip", "cut", "insert", "set", "page"]))
        if what == "flip":
            result[at] ^= draw(st.integers(1, 255))
        elif what == "cut":
            del result[at : at + draw(st.integers(1, 5000))]
        elif what == "insert":
            result[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif what == "set":
            value = draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0xFFFFFFFF, 0x10]))
            size = draw(st.sampled_from([1, 2, 4]))
            result[at : at + size] = (value & (256**size - 1)).to_bytes(size, "big")
        else:
            # Headers of b-tree pages are where a parser can be led astray.
            base = at // 4096 * 4096 + draw(st.integers(0, 20))
            if base < len(result):
                result[base] = draw(st.integers(0, 255))
    return bytes(result)


def judged(folder: Path, relay: HonestRelay) -> None:
    """Audit and render; anything but a verdict fails the test by its exception."""
    report = audit.run(folder, card=relay.card, canaries=[b"a canary that is not in there"])
    assert report.verdict in Verdict
    assert render_text(report).startswith(report.verdict.value)
    assert render_json(report)
    assert "<script" not in render_html(report)


class TestFuzz:
    @given(st.data())
    @settings(max_examples=150)
    def test_a_mutated_store_raises_one_family_only(self, disclosed: Path, data: st.DataObject) -> None:
        store = (disclosed / "store/store.sqlite").read_bytes()
        mutated = data.draw(mutations(store))
        try:
            parsed = read_store(memoryview(mutated))
        except AuditError:
            return
        assert sum(parsed.classes.values()) == len(mutated)

    @given(st.data())
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    def test_a_mutated_file_signed_or_not_gets_a_verdict(
        self, relay: HonestRelay, disclosed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        names = sorted(path.relative_to(disclosed) for path in disclosed.rglob("*") if path.is_file())
        name = data.draw(st.sampled_from(names))
        folder = tmp_path_factory.mktemp("mutated")
        for path in names:
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes((disclosed / path).read_bytes())
        (folder / name).write_bytes(data.draw(mutations((disclosed / name).read_bytes())))
        if data.draw(st.booleans()):
            relay.sign_manifest(folder)
        judged(folder, relay)

    @given(st.binary(max_size=300))
    def test_decoders_raise_one_family_only(self, data: bytes) -> None:
        for read in (
            lambda: decode(data, "value", 300),
            lambda: read_manifest(data),
            lambda: read_header(data, "header"),
            lambda: read_card(data, "card"),
            lambda: build_key_ring(bytes(32), bytes(16), (data,)),
            lambda: read_store(memoryview(data)),
        ):
            try:
                read()
            except AuditError as error:
                told = str(error)
            else:
                continue
            assert ": " in told

    @given(st.data())
    def test_volunteered_files_of_any_bytes_are_read_or_named(self, relay: HonestRelay, data: st.DataObject) -> None:
        letters = relay.letters[:2]
        items = [relay.receipt_item(it) for it in letters] + [relay.key_item(it) for it in letters]
        material = read_material([data.draw(mutations(relay.volunteer(items)))], [], [])
        assert isinstance(material, Material)
        assert material.volunteered_files == 1 or material.problems

    @given(
        st.recursive(
            st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
            lambda inner: st.lists(inner, max_size=5),
            max_leaves=20,
        )
    )
    def test_what_decodes_encodes_to_the_same_bytes(self, value: object) -> None:
        encoded = pack(value)
        try:
            decoded = decode(encoded, "value", 100_000)
        except AuditError as error:
            told = str(error)
        else:
            assert pack(decoded) == encoded
            return
        assert "nested" in told


class TestDirectory:
    def test_no_directory_is_the_callers_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(AuditError, match="no directory"):
            audit.run(tmp_path / "nothing")

    def test_an_empty_directory_is_incomplete(self, tmp_path: Path, relay: HonestRelay) -> None:
        report = audit.run(tmp_path, card=relay.card)
        assert report.verdict is Verdict.INCOMPLETE
        assert "manifest.msgpack" in missing_of(report)
        judged(tmp_path, relay)

    def test_a_pipe_is_not_opened(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        (tmp_path / "d/log/relay.log").unlink()
        os.mkfifo(tmp_path / "d/log/relay.log")
        report = audit.run(tmp_path / "d", card=relay.card)
        assert "no regular file" in findings_of(report, "manifest.files")

    def test_a_directory_that_links_to_itself_ends(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        (tmp_path / "d/loop").symlink_to(tmp_path / "d", target_is_directory=True)
        report = audit.run(tmp_path / "d", card=relay.card)
        assert report.failed == ("manifest.files",)

    def test_folders_without_end(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        (tmp_path / ("d" + "/deep" * 30)).mkdir(parents=True)
        report = audit.run(tmp_path / "d", card=relay.card)
        assert "nested deeper" in findings_of(report, "manifest.files")

    def test_too_many_files(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        for i in range(1001):
            (tmp_path / "d" / f"z{i}").touch()
        before = len(os.listdir("/proc/self/fd"))
        report = audit.run(tmp_path / "d", card=relay.card)
        assert len(os.listdir("/proc/self/fd")) == before
        (outcome,) = (outcome for outcome in report.outcomes if outcome.about.check_id == "manifest.files")
        assert any("more than 1,000 entries" in text for text in outcome.missing)
        assert report.failed == ("manifest.files",), "those that were looked at are not of the manifest"
        assert report.verdict is Verdict.NOT_BLIND

    def test_names_that_drive_a_terminal_are_shown_harmless(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        (tmp_path / "d" / "\x1b[2J<script>").write_bytes(b"")
        report = audit.run(tmp_path / "d", card=relay.card)
        assert report.failed == ("manifest.files",)
        assert "\x1b" not in render_text(report)
        assert "<script>" not in render_html(report)

    def test_files_that_nobody_may_read(
        self, tmp_path: Path, relay: HonestRelay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay.disclose(tmp_path / "d")
        real = os.open

        def refuse(path: str, flags: int, *args: int, **kwargs: int) -> int:
            if str(path) == "relay.log":
                raise PermissionError(13, "Permission denied")
            return real(path, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", refuse)
        report = audit.run(tmp_path / "d", card=relay.card)
        assert "cannot be read (Permission denied)" in findings_of(report, "manifest.files")

    def test_a_file_too_large_to_be_read_whole(
        self, tmp_path: Path, relay: HonestRelay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay.disclose(tmp_path / "d")
        monkeypatch.setattr("audit.disclosure.SMALL_FILE_BYTES_MAX", 200)
        report = audit.run(tmp_path / "d", card=relay.card)
        assert report.verdict is Verdict.INCOMPLETE
        assert "manifest.msgpack: " in missing_of(report)
        assert "at most 200 are read" in missing_of(report)

    def test_nothing_is_written(self, tmp_path: Path, relay: HonestRelay) -> None:
        relay.disclose(tmp_path / "d")
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        audit.run(tmp_path / "d", card=relay.card)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class TestCards:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (("protocol = 1", "protocol = 2"), "protocol must be 1"),
            (("protocol = 1", "protocol = true"), "protocol must be 1"),
            (("partition = 0", "partition = 70000"), "partition a number"),
            (("signing_key", "signing-key"), "has a key 'signing-key'"),
            (('relay_id = "', 'relay_id = "0'), "relay_id must be 32 hexadecimal digits"),
            (("protocol = 1", "= 1"), "is no TOML"),
        ],
    )
    def test_card_that_is_none(self, relay: HonestRelay, change: tuple[str, str], text: str) -> None:
        with pytest.raises(AuditError, match=text):
            read_card(relay.card.decode().replace(*change).encode(), "card")

    def test_card_whose_id_is_not_its_keys(self, relay: HonestRelay) -> None:
        card = relay.card.decode().replace(relay.relay_id.hex(), "0" * 32)
        with pytest.raises(AuditError, match="not the hash of signing_key"):
            read_card(card.encode(), "card")

    def test_card_too_long(self) -> None:
        with pytest.raises(AuditError, match="at most 16384"):
            read_card(b"#" * 20_000, "card")
