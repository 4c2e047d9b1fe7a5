"""Checks a proof of one leaf that travels by itself (C2SP tlog-proof), against a log that was verified.

    c2sp.org/tlog-proof@v1
    index INDEX
    BASE64(hash), one a line
                                    an empty line
    the checkpoint, a signed note

The proof's checkpoint may be older than the log at hand: it must then be one that this very log had.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from audit.errors import ProofError
from audit.merkle import PROOF_HASHES_MAX, verify_inclusion
from audit.order_log import OrderLog
from audit.tlog import read_note, verify_note

HEAD: Final = "c2sp.org/tlog-proof@v1"


def verify_proof(data: bytes, log: OrderLog) -> int:
    """Check a proof; return the leaf's index.

    Args:
        data: the proof's file.
        log: the verified log.

    Raises:
        AuditError: it is none, or does not lead to a tree head of this log.
    """
    try:
        head, _, note_text = data.decode("utf-8").partition("\n\n")
    except UnicodeDecodeError:
        raise ProofError("proof", "is not UTF-8") from None
    lines = head.split("\n")
    word, _, number = (lines[1] if len(lines) > 1 else "").partition(" ")
    if lines[0] != HEAD or word != "index" or not number.isascii() or not number.isdigit() or len(number) > 19:
        raise ProofError("proof", f"does not begin with {HEAD} and an index")
    if len(lines) - 2 > PROOF_HASHES_MAX:
        raise ProofError("proof", f"has more than {PROOF_HASHES_MAX} hashes")
    note = read_note(note_text.encode(), "proof's checkpoint")
    key = next((key for size, key in reversed(log.keys) if size <= note.size), b"")
    if not key or note.origin != log.origin:
        raise ProofError("proof's checkpoint", "is another log's")
    verify_note(note, key, "proof's checkpoint")
    if not 0 < note.size <= len(log.hashes) or log.root_at(note.size) != note.root:
        raise ProofError("proof's checkpoint", "is none that this log has had")
    index = int(number)
    if index >= note.size:
        raise ProofError("proof", f"leaf {index} is not below the tree's size {note.size}")
    verify_inclusion(log.hashes[index], index, note.size, [_hash(line) for line in lines[2:]], note.root)
    return index


def _hash(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise ProofError("proof", "has a hash that is not base64") from None
