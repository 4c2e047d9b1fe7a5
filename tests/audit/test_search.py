"""The search of many needles at once finds what one search each would find."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import needles
from audit.encodings import canary_needles, secret_needles, text_windows
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


def test_streams_are_inflated_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    needle = b"a needle in a compressed stream"
    bomb = zlib.compress(bytes(50_000_000) + needle)
    stream = zlib.compress(b"x" * 5000 + needle)
    finder = Finder([Needle(needle, 0, "UTF-8")], inflate=True)
    hits = finder.search(memoryview(bomb + stream + stream[:-4]))
    assert {hit.form for hit in hits} == {"UTF-8, compressed"}
    assert [hit.offset for hit in hits] == [len(bomb), len(bomb) + len(stream)]
    assert finder.figures.inflated_bytes < 4_000_000
    monkeypatch.setattr(needles, "STREAMS_MAX", 1)
    finder = Finder([Needle(needle, 0, "UTF-8")], inflate=True)
    finder.search(memoryview(stream + stream))
    assert finder.figures.streams_left_out == 1
    finder.search(memoryview(stream + stream))
    assert finder.figures.streams_left_out == 3


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
