"""What adversaries compute from what they see: one vector of numbers for an episode, in groups by what is looked at.

    vector = measure(seen)                        float32, as FEATURES names them
    columns = GROUPS["nonces"]                    where a group stands in it

Written by hand for what goes wrong with encryption in practice. Sizes are also looked at relative to the padding's
steps, times within their second, bytes by value and by position, bodies in pairs and by repeated words, and the keys
that everybody knows are tried. Learned adversaries get the whole vector.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any, Final, TypeAlias

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import CBC
from numpy.typing import NDArray

from client.content import Kind
from keys.message import COMMITMENT_END, HEADER_END, NONCE_END, SLOT_END
from sim.experiments.game.episode import Row, Seen
from sim.historical import GLOBAL_PIN_KEY, read_message
from wire.codec import decode
from wire.commands import Ack, Submit
from wire.envelope import ORDINARY_OVERHEAD_BYTES
from wire.errors import FormatError
from wire.padding import padme
from wire.receipt import CommitHeader

__all__ = ["FEATURES", "GROUPS", "Matrix", "Vector", "measure"]

Vector: TypeAlias = NDArray[np.float32]
Matrix: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]

_CONTENT_BYTES: Final = 256
"""So much of each content is compared by position: every body has it."""
_BINS: Final = 32
_WORD_BYTES: Final = 8
_PIN_IV: Final = slice(128, 136)
_PIN_START: Final = slice(136, 152)


class _Looked:
    """What several groups need of the bodies, computed once."""

    __slots__ = ("bodies", "contents", "heads", "prefixes", "rows")

    def __init__(self, seen: Seen) -> None:
        self.rows: tuple[Row, ...] = seen.rows
        self.bodies = [row.body for row in seen.rows]
        self.heads = _matrix([body[:HEADER_END] for body in self.bodies], HEADER_END)
        self.prefixes = _matrix(
            [body[HEADER_END : HEADER_END + _CONTENT_BYTES] for body in self.bodies], _CONTENT_BYTES
        )
        self.contents: Bytes = np.frombuffer(b"".join(body[HEADER_END:] for body in self.bodies), dtype=np.uint8)


def _matrix(rows: list[bytes], width: int) -> Bytes:
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width)


def _lengths(seen: Seen, looked: _Looked) -> list[float]:
    sizes = [len(body) for body in looked.bodies]
    # What is missing to the next length that padding gives: 0 wherever there is padding.
    missing = [padme(size - ORDINARY_OVERHEAD_BYTES) - (size - ORDINARY_OVERHEAD_BYTES) for size in sizes]
    numbers = [
        float(len(sizes)),
        float(sum(sizes)),
        float(min(sizes)),
        float(max(sizes)),
        fmean(missing),
        float(max(missing)),
        fmean([size % 16 for size in sizes]),
        float(len(set(sizes))) / len(sizes),
        float(sum(line.body_bytes for line in seen.log)),
    ]
    ups = [frame.size for frame in seen.frames if frame.up]
    downs = [frame.size for frame in seen.frames if not frame.up]
    numbers += [_mean(ups), _mean(downs), float(sum(ups)), float(sum(downs)), float(len(downs))]
    return numbers


def _timing(seen: Seen, looked: _Looked) -> list[float]:
    if seen.frames:
        times = [frame.at_ms for frame in seen.frames if any(isinstance(item, Submit) for item in frame.commands)]
        acks = [frame.at_ms for frame in seen.frames if any(isinstance(item, Ack) for item in frame.commands)]
        downs = [frame.at_ms for frame in seen.frames if not frame.up]
    else:
        times = [decode(CommitHeader, row.header, "commit header").time_ms for row in seen.commits]
        acks = [1_000 * line.at_s for line in seen.log if line.acks]
        downs = [1_000 * line.at_s for line in seen.log]
    gaps = [after - before for before, after in pairwise(times)]
    within = [time % 1_000 for time in times]
    return [
        _mean(gaps),
        float(min(gaps, default=0)),
        float(max(gaps, default=0)),
        pstdev(gaps) if gaps else 0.0,
        _mean(within),
        float(max(within, default=0)),
        float(within.count(0)) / max(1, len(within)),
        float(times[-1] - times[0]) if times else 0.0,
        float(len(acks)),
        _mean([ack - max((time for time in times if time <= ack), default=ack) for ack in acks]),
        _mean([down % 1_000 for down in downs]),
    ]


def _order(seen: Seen, looked: _Looked) -> list[float]:
    rows = looked.rows
    places: list[tuple[int, int, int]] = sorted((row.group, row.place, row.mailbox) for row in rows)
    by_mailbox = {seq: [row.place for row in rows if row.mailbox == seq] for seq in (1, 2, 3)}
    ids = [row.envelope_id for row in rows]
    sizes = [len(row.body) for row in rows]
    return [
        *(_mean(by_mailbox[seq]) for seq in (1, 2, 3)),
        _mean([row.leaf for row in seen.tombstones]),
        _ascending([mailbox for _group, _place, mailbox in places]),
        _ascending(ids),
        _ascending(sizes),
        _ascending([row.body for row in rows]),
        _ascending([row.key for row in seen.tombstones]),
        _ascending([row.token for row in seen.tombstones]),
    ]


def _bytes(seen: Seen, looked: _Looked) -> list[float]:
    counts = np.bincount(looked.contents, minlength=256)
    total = max(1, len(looked.contents))
    expected = total / 256
    bins = counts.reshape(_BINS, -1).sum(axis=1) / total
    ranked = np.sort(counts)[::-1]
    signatures = b"".join(row.signature + row.leaves for row in seen.commits)
    return [
        *bins.tolist(),
        float(((counts - expected) ** 2).sum() / expected),
        float(counts[0]) / total,
        float(ranked[0]) / total,
        float(ranked[:8].sum()) / total,
        float(np.count_nonzero(counts)),
        float(counts[:128].sum()) / total,
        float(counts[0x20:0x7F].sum()) / total,
        float(counts[ord("\r")] + counts[ord("\n")]) / total,
        _mean(signatures),
        _mean(b"".join(row.envelope_id for row in looked.rows)),
    ]


def _positions(seen: Seen, looked: _Looked) -> list[float]:
    ends = _matrix([body[-16:] for body in looked.bodies], 16)
    means: list[float] = looked.heads.mean(axis=0).tolist() + ends.mean(axis=0).tolist()
    return [*means, _mean([row.expiry % 3_600 for row in looked.rows])]


def _repeats(seen: Seen, looked: _Looked) -> list[float]:
    rows = len(looked.bodies)
    words = np.ascontiguousarray(looked.prefixes).view(np.uint64).ravel()
    whole = looked.contents[: len(looked.contents) // _WORD_BYTES * _WORD_BYTES].view(np.uint64)
    pairs = _equal_share(looked.prefixes, rows)
    return [
        1 - len(np.unique(words)) / len(words),
        1 - len(np.unique(whole)) / len(whole),
        float(pairs.max()),
        float(pairs.mean()),
        float((pairs > 0.25).mean()),
        1 - len(set(looked.bodies)) / rows,
        1 - len({body[HEADER_END:] for body in looked.bodies}) / rows,
        1 - len({row.envelope_id for row in looked.rows}) / rows,
    ]


def _nonces(seen: Seen, looked: _Looked) -> list[float]:
    rows = len(looked.bodies)
    nonces = [body[COMMITMENT_END:NONCE_END] for body in looked.bodies]
    commitments = [body[SLOT_END:COMMITMENT_END] for body in looked.bodies]
    hints = [body[:SLOT_END] for body in looked.bodies]
    same = np.array([[one == other for other in nonces] for one in nonces])[np.triu_indices(rows, 1)]
    equal = _equal_share(looked.prefixes, rows)[same] if same.any() else np.zeros(1)
    return [
        1 - len(set(nonces)) / rows,
        1 - len(set(commitments)) / rows,
        1 - len(set(hints)) / rows,
        float(same.mean()) if len(same) else 0.0,
        # Under one nonce and key, two bodies are equal where their contents are.
        float(equal.max()),
        float(equal.mean()),
        float(equal.min()),
    ]


def _known_keys(seen: Seen, looked: _Looked) -> list[float]:
    opened, mails, lengths = 0, 0, [0]
    for body in looked.bodies:
        if not _opens_to_zeros(body):
            continue
        try:
            message = read_message(body)
        except FormatError:
            continue
        opened += 1
        mails += message.kind == Kind.EMAIL
        lengths.append(len(message.payload))
    rows = len(looked.bodies)
    return [opened / rows, mails / rows, fmean(lengths)]


_GROUPS: Final[Mapping[str, Callable[[Seen, _Looked], list[float]]]] = {
    "lengths": _lengths,
    "timing": _timing,
    "order": _order,
    "bytes": _bytes,
    "positions": _positions,
    "repeats": _repeats,
    "nonces": _nonces,
    "known keys": _known_keys,
}
_WIDTHS: Final = (14, 11, 10, _BINS + 10, HEADER_END + 17, 8, 7, 3)


def _slices() -> dict[str, slice]:
    ends = np.cumsum(_WIDTHS).tolist()
    return {name: slice(end - width, end) for name, width, end in zip(_GROUPS, _WIDTHS, ends, strict=True)}


GROUPS: Final[Mapping[str, slice]] = _slices()
"""Where each group stands in the vector."""

FEATURES: Final = sum(_WIDTHS)


def measure(seen: Seen) -> Vector:
    """All features of an episode."""
    looked = _Looked(seen)
    vector = np.zeros(FEATURES, dtype=np.float32)
    for name, look in _GROUPS.items():
        # Whatever cannot be measured, such as a pause where there was one message, is 0.
        vector[GROUPS[name]] = look(seen, looked)
    return vector


def _mean(values: Sequence[int] | Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _ascending(values: Sequence[Any]) -> float:
    """The share of neighbours in ascending order."""
    rising = [before < after for before, after in pairwise(values)]
    return _mean(rising)


def _equal_share(prefixes: Bytes, rows: int) -> NDArray[np.float64]:
    """For each pair of bodies the share of bytes that are equal at the same place."""
    if rows < 2:
        return np.zeros(1)
    first, second = np.triu_indices(rows, 1)
    shares: NDArray[np.float64] = (prefixes[first] == prefixes[second]).mean(axis=1)
    return shares


_PIN_CIPHER: Final = TripleDES(GLOBAL_PIN_KEY)


def _opens_to_zeros(body: bytes) -> bool:
    """Whether the first two blocks are zeros under the global PIN key: one look, before the whole is decrypted."""
    return not any(Cipher(_PIN_CIPHER, CBC(body[_PIN_IV])).decryptor().update(body[_PIN_START]))
