"""The key of the public log, and the log's first leaf: made once for each home, loaded by whoever writes the log.

DIR/log.key   0600  the seed of the log's key; the relay's process never loads it
DIR/log.vkey        its public half, as Go's sumdb/note writes it
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relay.home import Home, HomeError, replace_file
from relay.tlog import TransparencyLog
from wire.codec import encode
from wire.errors import FormatError, SignatureError
from wire.leaves import begin_log
from wire.limits import KEY_BYTES
from wire.note import NoteKey, NoteSigner, open_checkpoint
from wire.signing import SigningKey
from wire.tiles import CHECKPOINT_NAME

__all__ = [
    "LOG_FOLDER",
    "LOG_KEY_NAME",
    "NEW_KEY_NAME",
    "bounded",
    "ensure_log",
    "log_key_of",
    "origin_of",
    "settle_key",
    "signer_of",
    "take_key",
]

LOG_FOLDER: Final = "transparency"
LOG_KEY_NAME: Final = "log.key"
LOG_VKEY_NAME: Final = "log.vkey"
NEW_KEY_NAME: Final = "log.key.new"


def origin_of(relay_id: bytes) -> str:
    """The name of a relay's log: the first line of its checkpoints."""
    return f"blindpost.example/relay/{relay_id.hex()}"


def log_key_of(home: Path) -> NoteKey:
    """The public key of a home's log.

    Raises:
        HomeError: it has none.
        FormatError: the file holds no key.
    """
    path = home / LOG_VKEY_NAME
    if not path.is_file():
        raise HomeError(f"{home} has no log yet: the first order begins it")
    return NoteKey.from_text(bounded(path, LOG_VKEY_NAME, 1_024).decode("utf-8", "replace"))


def ensure_log(home: Home, now_s: int, entropy: Callable[[int], bytes]) -> None:
    """Begin the log of a home that has none: a key, and the first leaf, signed by the relay's present key.

    The key is durable before the log is: a crash in between leaves a key that the next call uses.

    Raises:
        OSError: a file could not be written.
        FormatError, SignatureError: the home's keys are damaged.
    """
    folder = home.path / LOG_FOLDER
    if (folder / CHECKPOINT_NAME).exists():
        return
    if not (home.path / LOG_KEY_NAME).exists():
        replace_file(home.path / LOG_KEY_NAME, entropy(KEY_BYTES), 0o600)
    signer = signer_of(home)
    replace_file(home.path / LOG_VKEY_NAME, (signer.key.text + "\n").encode(), 0o644)
    keys = home.load_keys()
    begins = begin_log(
        now_s,
        keys.relay_id,
        signer.key.name,
        signer.key.public,
        home.card.signing_key,
        keys.rotations,
        SigningKey(keys.seed),
    )
    TransparencyLog.create(folder, signer, [encode(begins)])


def settle_key(home: Home) -> None:
    """Finish or undo a change of the log's key that a crash has cut short: the checkpoint says which key counts.

    Raises:
        OSError: a file could not be read or written.
    """
    waiting = home.path / NEW_KEY_NAME
    if not waiting.exists():
        return
    note = bounded(home.path / LOG_FOLDER / CHECKPOINT_NAME, CHECKPOINT_NAME, 65_536)
    try:
        open_checkpoint(note, signer_of(home, NEW_KEY_NAME).key)
    except (FormatError, SignatureError):
        waiting.unlink()
        return
    take_key(home)


def take_key(home: Home) -> None:
    """The waiting key is the log's from now on.

    Raises:
        OSError: a file could not be written.
    """
    signer = signer_of(home, NEW_KEY_NAME)
    replace_file(home.path / LOG_VKEY_NAME, (signer.key.text + "\n").encode(), 0o644)
    (home.path / NEW_KEY_NAME).replace(home.path / LOG_KEY_NAME)


def signer_of(home: Home, name: str = LOG_KEY_NAME) -> NoteSigner:
    """The key with which the log's checkpoints are signed; secret.

    Raises:
        FormatError: it is no seed, or others can read it.
        OSError: it cannot be read.
    """
    path = home.path / name
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise FormatError(name, "can be read by others; its mode must be 0600", 0o600)
        seed = file.read(KEY_BYTES + 1)
    key = SigningKey(seed)
    # libsodium's secret key is seed and public key, one after the other.
    return NoteSigner(origin_of(home.card.relay_id), key.public, seed + key.public)


def bounded(path: Path, name: str, bytes_max: int) -> bytes:
    """A file of the home, if it is not too large.

    Raises:
        FormatError: it is.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise FormatError(name, "is too large", bytes_max)
    return data
