"""Relays that keep other people's keys where they are hard to find; run as relay_side.py is, by its path.

One process carries all of it, one key of each kind at each place: in the middle of a heap block, in a block that was
freed, on the stack of a thread, as hexadecimal in a string, as base64, and inside of a zlib stream. They come masked
and are unmasked where they stay, byte by byte, so that no other copy of them is left by their coming.
"""

import base64
import ctypes
import importlib.util
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

Spoils = dict[str, Any]

MASK: Final = bytes.fromhex("5ad1f0783b96c4e20f8d47a1936c2be5187e04bf5d82d93a66f3105bc82e97a4")
KEY_BYTES: Final = 32
_HEAP_BLOCK_BYTES: Final = 48_000
_FREED_BLOCK_BYTES: Final = 1_000
"""Small enough that the C library keeps it in a list of its own and gives it to the next who wants just this size."""
_STACK_WAIT_S: Final = 0.05
_AMONG: Final = b'{"account": "a customer", "handheld": 4711, "state": "enrolled", "transport key": "'


def _relay_side() -> Any:
    """relay_side.py, by its path, as relay_unseen.py loads it."""
    spec = importlib.util.spec_from_file_location("relay_side", Path(__file__).with_name("relay_side.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEPT: Final[list[Any]] = []
"""What lives as long as the process."""


def _unmask(into: Any, at: int, masked: bytes) -> None:
    """Write a key where it stays; integers below 256 leave no trace of it."""
    for position, (byte, mask) in enumerate(zip(masked, MASK, strict=True)):
        into[at + position] = byte ^ mask


def _wipe(block: bytearray) -> None:
    for position in range(len(block)):
        block[position] = 0


def mid_heap(masked: Sequence[bytes]) -> None:
    """In the middle of a large block of something else."""
    block = bytearray(_HEAP_BLOCK_BYTES)
    for number, key in enumerate(masked):
        _unmask(block, _HEAP_BLOCK_BYTES // 2 + 2 * KEY_BYTES * number, key)
    KEPT.append(block)


def freed_block(masked: Sequence[bytes]) -> None:
    """In blocks that were freed and not overwritten."""
    blocks = [bytearray(_FREED_BLOCK_BYTES) for _ in masked]
    for block, key in zip(blocks, masked, strict=True):
        _unmask(block, _FREED_BLOCK_BYTES // 2 + 4, key)
    blocks.clear()


class _OnStack(ctypes.Structure):
    """32 bytes that are passed by value: the calling convention puts them on the stack."""

    _fields_ = (("data", ctypes.c_ubyte * KEY_BYTES),)


def thread_stack(masked: Sequence[bytes]) -> None:
    """On the stack of a thread that waits in the C library; what lay in the heap for the call is wiped."""
    arguments = [_OnStack() for _ in masked]
    for argument, key in zip(arguments, masked, strict=True):
        _unmask(argument.data, 0, key)
    pause = ctypes.CDLL(None).pause
    pause.argtypes = [_OnStack] * len(arguments)
    threading.Thread(target=pause, args=arguments, daemon=True).start()
    # The thread is in the call when its arguments have been copied; it then waits as long as the process lives.
    time.sleep(_STACK_WAIT_S)
    for argument in arguments:
        ctypes.memset(ctypes.byref(argument), 0, KEY_BYTES)


def hexadecimal(masked: Sequence[bytes]) -> None:
    """As a string of hexadecimal digits among others."""
    for key in masked:
        block = bytearray(KEY_BYTES)
        _unmask(block, 0, key)
        KEPT.append(f"transport-key={block.hex()};")
        _wipe(block)


def base64_text(masked: Sequence[bytes]) -> None:
    """As base64."""
    for key in masked:
        block = bytearray(KEY_BYTES)
        _unmask(block, 0, key)
        KEPT.append(base64.b64encode(block))
        _wipe(block)


def zlib_stream(masked: Sequence[bytes]) -> None:
    """Among text, compressed."""
    for key in masked:
        block = bytearray(3 * _AMONG + bytes(KEY_BYTES) + 3 * _AMONG)
        _unmask(block, 3 * len(_AMONG), key)
        KEPT.append(zlib.compress(block))
        _wipe(block)


PLACES: Final[dict[str, Callable[[Sequence[bytes]], None]]] = {
    "keys-mid-heap": mid_heap,
    "keys-in-freed-block": freed_block,
    "keys-in-thread-stack": thread_stack,
    "keys-as-hexadecimal": hexadecimal,
    "keys-as-base64": base64_text,
    "keys-in-zlib": zlib_stream,
}
OUT_OF_REACH: Final = "chain-key-out-of-reach"


def planted(home: Path, spoils: Spoils) -> None:
    """Keep a key of each kind at each place; the freed blocks last, or what follows would take them."""
    keys = {name: [bytes.fromhex(key) for key in masked] for name, masked in spoils.pop("planted").items()}
    for name in sorted(keys, key=lambda name: name == "keys-in-freed-block"):
        PLACES[name](keys[name])


def out_of_reach(home: Path, spoils: Spoils) -> None:
    """A chain key from which nine steps lead to the first message that still waits."""
    mid_heap([bytes.fromhex(spoils.pop("far_chain_key"))])


KEY_CHEATS: Final[dict[str, Callable[[Path, Spoils], None]]] = {
    **dict.fromkeys(PLACES, planted),
    OUT_OF_REACH: out_of_reach,
}


def main(arguments: list[str]) -> int:
    """As relay_side.py's, with these cheats."""
    side = _relay_side()
    side.CHEATS.update(KEY_CHEATS)
    return int(side.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
