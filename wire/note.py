"""Signed notes and the checkpoints in them (C2SP signed-note and tlog-checkpoint).

    ORIGIN
    SIZE
    BASE64(root)

    — NAME BASE64(key id ‖ Ed25519 signature over the lines above the empty one)

A note's signature covers its text alone, without a label of ours, so that every tool which knows the format can check
it. It cannot be taken for one of our signatures: those begin with `blindpost/v1/` and a byte 0, which no note holds.

Rules: a line that is not exactly as the format says is refused; signatures of unknown keys are ignored, as a witness's
or a later key's may stand there; one of the known key that does not verify refuses the whole note.
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from nacl.bindings.crypto_sign import crypto_sign, crypto_sign_BYTES, crypto_sign_open
from nacl.exceptions import BadSignatureError, CryptoError

from wire.errors import FormatError, SignatureError
from wire.limits import HASH_BYTES, KEY_BYTES, SIGNATURE_BYTES

__all__ = ["Checkpoint", "NoteKey", "NoteSigner", "open_checkpoint", "open_note", "sign_checkpoint"]

NOTE_BYTES_MAX: Final = 65_536
SIGNATURES_MAX: Final = 64
SIZE_MAX: Final = 2**63 - 1
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_NAME_CHARACTERS_MAX: Final = 254
_MARK: Final = "— "


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that signs notes, under a name.

    Args:
        name: without spaces and plus signs; a log's is its origin.
        public: the Ed25519 key, 32 bytes.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != KEY_BYTES:
            raise FormatError("note key", f"has {len(self.public)} bytes", KEY_BYTES)

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key), the first four bytes."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as Go's sumdb/note writes it: NAME+HEX(key id)+BASE64(0x01 ‖ key)."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(_ED25519 + self.public)}"

    @classmethod
    def from_text(cls, text: str) -> "NoteKey":
        """Read it back.

        Raises:
            FormatError: it is no such key, of another kind, or with an id that is not its own.
        """
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _unbase64(encoded, "note key")
        if data[:1] != _ED25519:
            raise FormatError("note key", "is of another kind than Ed25519")
        key = cls(name, data[1:])
        if key.key_id.hex() != key_id:
            raise FormatError("note key", "has the id of another key")
        return key


class NoteSigner:
    """A secret key that signs notes, under a name. Its repr shows the public half only.

    Args:
        name: as of a `NoteKey`.
        public: 32 bytes.
        secret: libsodium's 64 secret bytes.
    """

    __slots__ = ("_secret", "key")

    def __init__(self, name: str, public: bytes, secret: bytes) -> None:
        self.key = NoteKey(name, public)
        self._secret = secret

    def __repr__(self) -> str:
        return f"NoteSigner(key={self.key.text}, secret=<redacted>)"

    def line(self, text: str) -> str:
        """The signature line under a note's text."""
        signature = crypto_sign(text.encode(), self._secret)[:crypto_sign_BYTES]
        return f"{_MARK}{self.key.name} {_base64(self.key.key_id + signature)}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: which log, how many leaves, which root.

    Args:
        origin: the log's name; one line without spaces and plus signs.
        size: leaves.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 0 <= self.size <= SIZE_MAX:
            raise FormatError("checkpoint size", f"{self.size} is out of range", SIZE_MAX)
        if len(self.root) != HASH_BYTES:
            raise FormatError("checkpoint root", f"has {len(self.root)} bytes", HASH_BYTES)

    @property
    def text(self) -> str:
        """The note's text: three lines."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """The checkpoint as a signed note.

    Raises:
        FormatError: the signer's name is not the origin.
    """
    if signer.key.name != checkpoint.origin:
        raise FormatError("checkpoint origin", "is not the name of the key that signs")
    return f"{checkpoint.text}\n{signer.line(checkpoint.text)}"


def open_note(note: str | bytes, key: NoteKey) -> str:
    """The text of a note that the key has signed.

    Raises:
        FormatError: no note.
        SignatureError: the key has not signed it.
    """
    text, lines = _parts_of(note)
    _check_signed(text, lines, key)
    return text


def open_checkpoint(note: str | bytes, key: NoteKey) -> Checkpoint:
    """Check a note's signature, then read the checkpoint.

    Args:
        note: the whole note.
        key: the log's; its name is the origin that the checkpoint must have.

    Raises:
        FormatError: no note, or no checkpoint of that log.
        SignatureError: the key has not signed it.
    """
    text = open_note(note, key)
    # Three lines end in a line feed each: the last piece is empty.
    origin, size, root, *rest = [*text.split("\n"), "", ""][: text.count("\n") + 3]
    if origin != key.name:
        raise FormatError("checkpoint origin", "is another log's")
    if not size.isascii() or not size.isdigit() or str(int(size[:20])) != size:
        raise FormatError("checkpoint size", "is no decimal number", SIZE_MAX)
    if any(rest):
        raise FormatError("checkpoint", "has extension lines, which this log never writes")
    return Checkpoint(origin, int(size), _unbase64(root, "checkpoint root"))


def check_name(name: str) -> None:
    """Refuse a name that a note cannot hold.

    Raises:
        FormatError: empty, too long, or with a space, plus sign or control character.
    """
    if not 0 < len(name) <= _NAME_CHARACTERS_MAX:
        raise FormatError("note key name", f"has {len(name)} characters", _NAME_CHARACTERS_MAX)
    if "+" in name or any(character.isspace() or not character.isprintable() for character in name):
        raise FormatError("note key name", "has a space, a plus sign or a control character")


def _parts_of(note: str | bytes) -> tuple[str, list[str]]:
    """The text, and the signature lines without their line feeds."""
    if len(note) > NOTE_BYTES_MAX:
        raise FormatError("note", f"has {len(note)} bytes", NOTE_BYTES_MAX)
    if isinstance(note, bytes):
        try:
            note = note.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError("note", "is not UTF-8") from None
    if any(character < " " and character != "\n" for character in note):
        raise FormatError("note", "has a control character")
    text, separator, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    if not separator or lines[-1] or not lines[:-1]:
        raise FormatError("note", "is no text, empty line and signatures")
    if len(lines) - 1 > SIGNATURES_MAX:
        raise FormatError("note", f"has {len(lines) - 1} signatures", SIGNATURES_MAX)
    return text + "\n", lines[:-1]


def _check_signed(text: str, lines: list[str], key: NoteKey) -> None:
    found = False
    for line in lines:
        name, _, encoded = line.removeprefix(_MARK).partition(" ")
        if not line.startswith(_MARK) or not name or not encoded:
            raise FormatError("note signature", "is no line of a dash, a name and base64")
        data = _unbase64(encoded, "note signature")
        if name != key.name or data[:_KEY_ID_BYTES] != key.key_id:
            continue
        signature = data[_KEY_ID_BYTES:]
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureError("note")
        try:
            crypto_sign_open(signature + text.encode(), key.public)
        except (BadSignatureError, CryptoError):
            raise SignatureError("note") from None
        found = True
    if not found:
        raise SignatureError("note")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unbase64(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or _base64(data) != text:
        raise FormatError(name, "is not base64")
    return data
