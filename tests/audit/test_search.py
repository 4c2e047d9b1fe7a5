"""The search of many needles at once finds what one search each would find."""

from __future__ import annotations

import base64
import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import needles
from audit.encodings import canary_needles, decoded_runs, secret_needles, text_windows
from audit.needles import Finder, Hit, Needle


@given(st.data())
def test_every_needle_is_found_wherever_it_lies(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    haystack = bytearray(rng.randbytes(data.draw(st.integers(0, 3000))))
    planted = []
    for subject in range(data.draw(st.integers(0, 4))):
        needle = bytes(rng.choices(b"abc\0", k=data.draw(st.integers(1, 60))))
        at = data.draw(st.integers(0, len(haystack)))
        haystack[at:at] = needle
        planted.append(Needle(needle, subject, "raw"))
    hits = Finder(planted).search(memoryview(haystack))
    for plant in planted:
        found = {hit.offset for hit in hits if hit.subject == plant.subject}
        at = bytes(haystack).find(plant.needle)
        assert (at in found) == (at >= 0)


def test_a_needle_across_two_chunks_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "CHUNK_BYTES", 64)
    needle = bytes(range(100, 140))
    haystack = bytes(50) + needle + bytes(100)
    assert Finder([Needle(needle, 3, "raw")]).search(memoryview(haystack)) == [Hit(3, "raw", 50)]


def test_long_zeros_are_passed_over_and_what_lies_between_is_found() -> None:
    needle = b"a needle between zeros"
    haystack = bytes(70_000) + needle + bytes(200_000) + needle
    hits = Finder([Needle(needle, 0, "raw")]).search(memoryview(haystack))
    assert [hit.offset for hit in hits] == [70_000, 270_000 + len(needle)]


NEEDLE = b"a needle in a compressed stream"


def compressed(text: bytes, level: int = 9, window_bits: int = 15) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, window_bits)
    return stream.compress(text) + stream.flush()


def found_in(data: bytes) -> list[Hit]:
    return Finder([Needle(NEEDLE, 0, "UTF-8")], inflate=True).search(memoryview(data))


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_zlib_of_any_window_and_level_is_inflated(level: int, window_bits: int) -> None:
    hit = Hit(0, "UTF-8, compressed", 2)
    assert hit in found_in(b".." + compressed(NEEDLE, level, window_bits))


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(NEEDLE),
        compressed(NEEDLE)[:-4] + b"nope",
        compressed(NEEDLE + b" and what follows it")[:-6] + b"\xff" * 9,
        compressed(bytes(range(256)) * 40 + NEEDLE + bytes(range(256)))[:-6],
        compressed(random.Random(1).randbytes(3_000) + NEEDLE + random.Random(2).randbytes(300))[:-200] + b"\xff" * 99,
        b"\x18\x38" + compressed(NEEDLE),
    ],
    ids=["gzip", "a wrong checksum", "broken at its end", "cut short", "broken far on", "behind half a header"],
)
def test_a_stream_that_is_broken_or_hidden_gives_what_it_has(data: bytes) -> None:
    assert {hit.form for hit in found_in(data)} >= {"UTF-8, compressed"}


@pytest.mark.parametrize("flags", [0, 2, 4, 8, 16, 30])
def test_gzip_with_any_fields_in_its_header_is_inflated(flags: int) -> None:
    extra = b"\x03\x00abc" if flags & 4 else b""
    names = b"name\0" * (bool(flags & 8) + bool(flags & 16))
    head = b"\x1f\x8b\x08" + bytes((flags,)) + bytes(6) + extra + names + (b"\0\0" if flags & 2 else b"")
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert found_in(head + raw.compress(NEEDLE) + raw.flush())
    assert found_in(head[:7]) == []


def test_what_stands_far_inside_a_stream_is_found() -> None:
    bomb = zlib.compress(bytes(20_000_000) + NEEDLE + bytes(3_000_000))
    assert [hit.offset for hit in found_in(b"...." + bomb)] == [4]


def test_raw_deflate_is_found_where_it_may_begin() -> None:
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = memoryview(b"ab" + raw.compress(NEEDLE) + raw.flush())
    finder = Finder([Needle(NEEDLE, 0, "UTF-8")])
    assert finder.search_deflated(data, [0]) == []
    assert finder.search_deflated(data, [0, 2]) == [Hit(0, "UTF-8, compressed", 2)]


def test_work_on_streams_is_bounded_and_what_is_left_undone_is_counted() -> None:
    stream = compressed(b"x" * 5_000 + NEEDLE)
    finder = Finder([Needle(NEEDLE, 0, "UTF-8")], inflate=True, work_bytes_max=1)
    finder.search(memoryview(stream))
    finder.search(memoryview(stream + stream))
    assert (finder.figures.streams, finder.figures.streams_left_out) == (1, 3)
    finder = Finder([Needle(NEEDLE, 0, "UTF-8")], inflate=True, work_bytes_max=3_000_000)
    assert finder.search(memoryview(zlib.compress(bytes(50_000_000) + NEEDLE))) == []
    assert finder.figures.streams_left_out == 1
    assert finder.figures.inflated_bytes < 6_000_000


def test_long_runs_of_base64_and_hexadecimal_are_decoded_whole() -> None:
    rng = random.Random(7)
    for place in (0, 48_000, 65_400, 98_000, 149_000):
        secret = rng.randbytes(32)
        data = bytearray(rng.randbytes(150_000))
        data[place : place + 32] = secret
        for encoded in (base64.b64encode(data), bytes(data).hex().encode()):
            assert any(secret in decoded for _, decoded in decoded_runs(b"= " + encoded))


def test_long_secrets_are_looked_for_to_their_end() -> None:
    secret = random.Random(3).randbytes(2_400)
    assert ("raw", secret[-16:]) in secret_needles(secret)


def test_hits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "HITS_MAX", 10)
    monkeypatch.setattr(needles, "CHUNK_BYTES", 1024)
    hits = Finder([Needle(b"ab", 0, "raw")]).search(memoryview(b"ab" * 10_000))
    assert len(hits) == 11


@pytest.mark.parametrize("needle", [b"", bytes(5000)])
def test_needles_of_no_use_are_refused(needle: bytes) -> None:
    with pytest.raises(ValueError, match="a needle of"):
        Finder([Needle(needle, 0, "raw")])


def test_needles_are_not_shown() -> None:
    assert "secret" not in repr(Needle(b"secret", 0, "raw"))


def test_windows_are_whole_for_short_texts_and_thinned_out_for_long_ones() -> None:
    assert text_windows("a short text") == ["a short text"]
    assert text_windows("aaaaaaaaaaaaaaaaaaaa") == []
    assert text_windows("short") == []
    rng = random.Random(1)
    long = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz ", k=100_000))
    assert len(text_windows(long)) == 48
    assert all(window in long for window in text_windows(long))


def test_canary_that_is_no_utf_8_is_looked_for_as_bytes() -> None:
    text = bytes(range(128, 160))
    assert text in {needle for _, needle in canary_needles(text)}


def test_secrets_are_cut_into_halves() -> None:
    secret = bytes(range(40))
    raw = [needle for form, needle in secret_needles(secret) if form == "raw"]
    assert raw == [secret[:16], secret[16:32], secret[24:]]
    assert secret_needles(bytes(32)) == []
    assert secret_needles(b"12345678901") == []
    assert ("raw", secret[:14]) in secret_needles(secret[:14])
