"""The names, widths and bundles of tlog-tiles, by the examples of its specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import FormatError
from wire.tiles import Tile, bundle_of, entries_of, hashes_from, tile_at, tiles_of


def test_the_names_are_those_of_the_specification() -> None:
    assert Tile(0, 1_234_067).path == "tile/0/x001/x234/067"
    assert Tile(2, 0, 1).path == "tile/2/000.p/1"
    assert Tile(None, 273, 112).path == "tile/entries/273.p/112"


def test_a_tree_of_70_000_has_the_tiles_of_the_specification() -> None:
    tiles = [tile for tile in tiles_of(0, 70_000) if tile.level is not None]
    assert [(tile.level, tile.index, tile.width) for tile in tiles if tile.width < 256] == [
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]
    assert len(tiles) == 273 + 1 + 1 + 1 + 1
    assert [tile.path for tile in tiles_of(0, 256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_what_changes_is_what_a_whole_tree_has_and_a_smaller_one_had_not(size: int, more: int) -> None:
    changed = set(tiles_of(size, size + more))
    assert changed == set(tiles_of(0, size + more)) - set(tiles_of(0, size))


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_is_read_back_and_not_with_another_width(entries: list[bytes]) -> None:
    bundle = bundle_of(entries)
    assert entries_of(bundle, len(entries)) == entries
    for data, width in (
        (bundle, len(entries) + 1),
        (bundle + b"\0", len(entries)),
        (bundle + b"\0\5x", len(entries) + 1),
    ):
        with pytest.raises(FormatError, match="entry bundle"):
            entries_of(data, width)


def test_an_entry_that_is_too_long_is_refused() -> None:
    assert len(bundle_of([bytes(65_535)])) == 65_537
    with pytest.raises(FormatError, match="65535"):
        bundle_of([bytes(65_536)])


def test_a_tile_of_another_length_than_its_width_is_refused() -> None:
    with pytest.raises(FormatError, match=r"tile/0/000\.p/3"):
        hashes_from(lambda tile: bytes(64), 3)(0, 2)
    assert tile_at(0, 1, 300).width == 44
