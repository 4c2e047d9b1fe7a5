"""The proof as a signed statement: an in-toto statement in a DSSE envelope, for whoever did not run it.

    statement = Statement(subjects, inputs, audit, results)
    write_new(path, statement.signed(load_signing_key(key_file)), secret=False)
    read_statement(data, public_key)        -> the payload, after the signature has been checked

The payload holds no time, path, host or name, so the same inputs give the same bytes: two people who ran the proof on
one disclosure compare `digest`, one line. The signature says only who claims to have run it.

Sources: in-toto Attestation Framework v1 (Statement; DigestSet with `dirHash`, the Hash1 of Go's sumdb/dirhash), DSSE
v1.0.2 (secure-systems-lab). Signing and envelope are securesystemslib's.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from blindpost.files import read_bounded, write_new
from blindpost.key_lines import base64_bytes, base64_text, line_of, words_of
from sim.experiments.result import Result, Verdict
from wire.errors import FormatError, SignatureError

__all__ = [
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "SigningKey",
    "Statement",
    "directory_digest",
    "file_digest",
    "load_signing_key",
    "new_signing_key",
    "overall",
    "read_public_key",
    "read_statement",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:blindpost:proof:v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

_KEY_WORD: Final = "blindpost-statement-key"
_PUBLIC_WORD: Final = "blindpost-statement-public-key"
_STATEMENT_BYTES_MAX: Final = 16 * 1_048_576
_READ_BYTES: Final = 1_048_576
_KEY_BYTES: Final = 32
_ROOMS: Final = ("audit", "blindpost", "client", "keys", "relay", "sim", "wire")
_LIBRARIES: Final = ("PyNaCl", "cryptography", "msgpack", "msgspec", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Statement:
    """What the payload says.

    Attributes:
        subjects: what was examined: name and digest set of each.
        inputs: the other files that the verdict depends on: name and SHA-256 of each.
        audit: the verifier's report, as audit/report_json.py makes it.
        results: the experiments, in the order in which they were run.
    """

    subjects: Sequence[tuple[str, Mapping[str, str]]]
    inputs: Sequence[tuple[str, str]]
    audit: Mapping[str, Any]
    results: Sequence[Result]

    @property
    def payload(self) -> bytes:
        """The statement as canonical JSON: keys sorted, no white space, UTF-8."""
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": dict(digest)} for name, digest in self.subjects],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "verdict": overall(self.audit, self.results).value,
                "verifier": {"digest": verifier_digests(), "libraries": _libraries()},
                "inputs": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(self.inputs)],
                "audit": _audit_part(self.audit),
                "experiments": [result.document() for result in self.results],
            },
        }
        return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the payload: what two people compare."""
        return hashlib.sha256(self.payload).hexdigest()

    def signed(self, key: "SigningKey") -> bytes:
        """The DSSE envelope, as JSON."""
        envelope = Envelope(self.payload, PAYLOAD_TYPE, {})
        envelope.sign(CryptoSigner(key.private))
        return json.dumps(envelope.to_dict(), indent=2).encode() + b"\n"


def overall(audit: Mapping[str, Any], results: Sequence[Result]) -> Verdict:
    """One verdict: VOID if any is, or the audit is incomplete; FAILS if any fails or the relay is not blind."""
    verdicts = {result.verdict for result in results}
    if audit["exit_status"] == 1 or Verdict.FAILS in verdicts:
        return Verdict.FAILS
    return Verdict.VOID if audit["exit_status"] or Verdict.VOID in verdicts or not results else Verdict.HOLDS


def _audit_part(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a third party needs of the report: the verdict, each check, and how each byte was accounted for."""
    return {
        "verdict": report["verdict"],
        "relay_id": report["relay_id"],
        "taken_at": report["taken_at"],
        "bytes": report["bytes"],
        "checks": [{"id": check["id"], "status": check["status"]} for check in report["checks"]],
        "findings": [
            f"{check['id']}: {finding['where']}: {finding['text']}"
            for check in report["checks"]
            for finding in check["findings"]
        ],
    }


def _libraries() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def verifier_digests() -> dict[str, dict[str, str]]:
    """The source of the verifier and of the experiments, a digest a room."""
    root = Path(__file__).resolve().parents[2]
    return {room: {"dirHash": directory_digest(root / room, "*.py")} for room in _ROOMS}


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def directory_digest(folder: Path, pattern: str = "*") -> str:
    """in-toto's dirHash: SHA-256 over a line `HEX  PATH` for each regular file, sorted by path.

    The same as `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum` in the folder.

    Args:
        folder: whose files, at any depth; symbolic links are left out.
        pattern: which names.
    """
    paths = [path for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink()]
    lines = sorted(
        ((path.relative_to(folder).as_posix(), path) for path in paths), key=lambda line: os.fsencode(line[0])
    )
    return hashlib.sha256("".join(f"{file_digest(path)}  {name}\n" for name, path in lines).encode()).hexdigest()


@dataclass(frozen=True, repr=False)
class SigningKey:
    """Who states it: an Ed25519 key of whoever ran the proof, unrelated to any key of the relay or a device."""

    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public_line.split()[1].decode()}, private=<redacted>)"

    @property
    def public_line(self) -> bytes:
        """The public half as a file of one line."""
        return line_of(_PUBLIC_WORD, base64_text(self.private.public_key().public_bytes_raw()))


def new_signing_key(path: Path) -> SigningKey:
    """Make a key and keep it, mode 0600; its public half beside it with the suffix `.pub`."""
    key = SigningKey(Ed25519PrivateKey.generate())
    write_new(path, line_of(_KEY_WORD, base64_text(key.private.private_bytes_raw())), secret=True)
    write_new(path.with_name(path.name + ".pub"), key.public_line, secret=False)
    return key


def load_signing_key(path: Path) -> SigningKey:
    """Read a key that `new_signing_key` kept.

    Raises:
        FormatError: it is no such file.
    """
    return SigningKey(Ed25519PrivateKey.from_private_bytes(_key_bytes(path, "statement key", _KEY_WORD)))


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read the public half.

    Raises:
        FormatError: it is no such file.
    """
    return Ed25519PublicKey.from_public_bytes(_key_bytes(path, "statement public key", _PUBLIC_WORD))


def _key_bytes(path: Path, name: str, word: str) -> bytes:
    words = words_of(path, name, word)
    key = base64_bytes(words[0], name) if len(words) == 1 else b""
    if len(key) != _KEY_BYTES:
        raise FormatError(name, "must be one key of so many bytes", _KEY_BYTES)
    return key


def read_statement(path: Path, public: Ed25519PublicKey) -> tuple[bytes, dict[str, Any]]:
    """Check an envelope's signature, then read its payload.

    Args:
        path: the file, or `-`.
        public: whose signature it must have.

    Returns:
        The payload's bytes, and what they say.

    Raises:
        FormatError: no envelope, or no statement of ours.
        SignatureError: the key has not signed it.
    """
    data = read_bounded(path, "statement", _STATEMENT_BYTES_MAX)
    try:
        envelope = Envelope.from_dict(json.loads(data))
    except Exception:
        # securesystemslib raises whatever a member of another type makes it raise; none of it is worth more than this.
        raise FormatError("statement", "is no DSSE envelope") from None
    try:
        envelope.verify([SSlibKey.from_crypto(public)], 1)
    except (VerificationError, UnverifiedSignatureError, ValueError):
        raise SignatureError("statement") from None
    return envelope.payload, _statement_of(envelope)


def _statement_of(envelope: Envelope) -> dict[str, Any]:
    try:
        statement = json.loads(envelope.payload)
    except (ValueError, RecursionError):
        statement = None
    kinds = (envelope.payload_type, STATEMENT_TYPE, PREDICATE_TYPE)
    if not isinstance(statement, dict) or kinds != (
        PAYLOAD_TYPE,
        statement.get("_type"),
        statement.get("predicateType"),
    ):
        raise FormatError("statement", "is no statement of this proof")
    return statement
