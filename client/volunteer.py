"""What a person may give the verifier, each by choice (protocol.md section 12).

    commitments   ["blindpost/v1/commitments", [[commitment, who], …]]      before the run
    volunteered   ["blindpost/v1/volunteered", who, [item, …]]              after it; an item is of one of six kinds

Functions here make items; nothing is written and nothing leaves the device. What each kind shows is said at its
function, so that a program can tell the person before. Rules:

* an opening is the key of one message and of no other; chain, header and root keys are never given;
* giving an opening moves no state: the message is received later as if nothing had been. But whoever has its key could
  make another body under it, so the hash of this one is durable in the home before the key is handed out, and another
  body is refused later (client/inbox.py);
* a canary is committed to before it is sent, and its nonce and text are sealed rows until they are given.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Annotated, Final

from msgspec import Meta

from client.attachments import Manifest, decode_manifest
from client.content import Kind as ContentKind
from client.content import decode_content
from client.device import Device
from client.records import BodyPin, CanaryRow, Partial
from client.sessions import has_chunk_length
from client.state import State
from client.store import Kind
from keys.chunks import FileKey, open_chunk
from keys.errors import AuthenticationFailed
from keys.message import Opening, open_with_message_key
from keys.session import Session
from wire.codec import decode, encode
from wire.envelope import Envelope
from wire.errors import FormatError
from wire.hashing import label

__all__ = [
    "SECRET_NAME_BYTES_MAX",
    "Item",
    "canary_items",
    "commit",
    "commitments_file",
    "list_items",
    "opening_items",
    "receipt_items",
    "secret_items",
    "volunteered_file",
]

Item = Sequence[object]
SECRET_NAME_BYTES_MAX: Final = 254
_TEXT_BYTES_MAX: Final = 65_536
_Text = Annotated[bytes, Meta(min_length=1, max_length=_TEXT_BYTES_MAX)]


def volunteered_file(who: str, items: Iterable[Item]) -> bytes:
    """The file that a participant gives (section 12.2)."""
    return encode(["blindpost/v1/volunteered", who, list(items)])


def commitments_file(commitments: Iterable[tuple[bytes, str]]) -> bytes:
    """The file that is given before the run (section 12.1): commitments, and who made them."""
    return encode(["blindpost/v1/commitments", [list(pair) for pair in commitments]])


def commit(device: Device, text: bytes) -> bytes:
    """Commit to a canary: a text that nobody has written before, to be sent later.

    Args:
        device: whose home keeps nonce and text.
        text: the canary, 1 to 65,536 bytes.

    Returns:
        The commitment, 32 bytes; it shows nothing of the text.

    Raises:
        FormatError: the text is empty or too long.
    """
    if not 1 <= len(text) <= _TEXT_BYTES_MAX:
        raise FormatError("canary", f"has {len(text)} bytes", _TEXT_BYTES_MAX)
    state = device.state
    row = CanaryRow(state.random(32), text)
    commitment = sha256(label("canary") + row.nonce + text).digest()
    with state.store.step() as step:
        step.put(Kind.CANARY, commitment, encode(row))
    return commitment


def canary_items(device: Device) -> list[Item]:
    """The canaries that this device committed to. Shows their texts."""
    rows = [decode(CanaryRow, value, "canary") for _name, value in device.state.store.items(Kind.CANARY)]
    return [(4, row.nonce, row.text) for row in rows]


def receipt_items(device: Device) -> list[Item]:
    """Every receipt of the relay that is kept. Shows which mailboxes this device wrote to, and when."""
    return [
        (
            2,
            held.header,
            held.signature,
            held.mailbox,
            held.envelope_id,
            held.expiry,
            held.number,
            held.leaf,
            held.path,
            held.body_hash,
            # Of an envelope that the recipient acked, the relay's tombstone shows the token; the sender need not.
            held.token if held.withdrawn else b"",
        )
        for held in device.state.evidence.held()
    ]


def secret_items(device: Device) -> list[Item]:
    """Every private key and session secret of the device, to be searched for. Gives the device away."""
    state = device.state
    named = [*state.keys.secrets(), *(state.ring.secrets() if state.ring is not None else ())]
    if state.account_key is not None:
        named.append(("account key", state.account_key.signing.seed))
    named += [pair for session in state.sessions.all_sessions() for pair in _session_secrets(session)]
    return [(1, f"{name} of {state.device.account or 'a device'}", secret) for name, secret in named if secret]


def _session_secrets(session: Session) -> list[tuple[str, bytes]]:
    ratchet = session.ratchet
    return [
        ("session root key", ratchet.root),
        ("session ratchet key", ratchet.ratchet_private),
        ("session sending chain", ratchet.chain_send),
        ("session receiving chain", ratchet.chain_receive),
        ("session sending header key", ratchet.header_send),
        ("session receiving header key", ratchet.header_receive),
        ("session next sending header key", ratchet.next_header_send),
        ("session next receiving header key", ratchet.next_header_receive),
        *(("skipped message key", skipped.message_key) for skipped in ratchet.skipped.values()),
    ]


def list_items(device: Device) -> list[Item]:
    """The device lists that this device knows. They are public."""
    return [(6, known.pin.signed_list) for known in device.state.pins.accounts()]


def opening_items(device: Device, envelopes: Sequence[Envelope]) -> list[Item]:
    """The message key of each of these envelopes that this device can open now. Shows those messages.

    Chunks open with the file key in their manifest, which is looked for among the envelopes and in the home. Bodies
    that are opened are pinned, durably, before this returns.

    Args:
        device: the recipient.
        envelopes: rows of a disclosure; those of other mailboxes are left out.

    Raises:
        StoreFailed: the pins could not be made durable; no key is handed out.
    """
    state = device.state
    mine = [envelope for envelope in envelopes if envelope.mailbox == state.keys.mailbox]
    opened: list[tuple[Envelope, Opening]] = []
    manifests = [(row.device_key, decode(Manifest, row.manifest, "manifest")) for row in _partials(state)]
    for envelope in mine:
        opening = state.sessions.opening_of(envelope.body, envelope.envelope_id)
        if opening is None:
            continue
        opened.append((envelope, opening))
        manifest = _manifest_in(envelope, opening)
        if manifest is not None:
            manifests.append((opening.sender_device, manifest))
    opened += _chunk_openings(state, mine, manifests)
    with state.store.step() as step:
        for envelope, _opening in opened:
            step.put(
                Kind.BODY_PIN, envelope.envelope_id, encode(BodyPin(sha256(envelope.body).digest(), envelope.expiry))
            )
    return [(3, envelope.mailbox, envelope.envelope_id, *opening) for envelope, opening in opened]


def _partials(state: State) -> list[Partial]:
    return [decode(Partial, value, "partial") for _name, value in state.store.items(Kind.PARTIAL)]


def _manifest_in(envelope: Envelope, opening: Opening) -> Manifest | None:
    """The manifest in a body that opens, if it holds one that is well formed."""
    try:
        content = decode_content(open_with_message_key(envelope.body, envelope.envelope_id, opening))
        return decode_manifest(content) if content.kind is ContentKind.MANIFEST else None
    except FormatError:
        # A peer wrote it wrongly: the key still opens the row, and there are no chunks to look for.
        return None


def _chunk_openings(
    state: State, mine: Sequence[Envelope], manifests: Sequence[tuple[bytes, Manifest]]
) -> list[tuple[Envelope, Opening]]:
    by_id = {envelope.envelope_id: envelope for envelope in mine if has_chunk_length(len(envelope.body))}
    found = []
    for sender_device, manifest in manifests:
        file_key = FileKey(manifest.file_key)
        for index in range(manifest.chunk_count):
            envelope = by_id.pop(file_key.envelope_id(index), None)
            if envelope is None:
                continue
            opening = file_key.opening(index, sender_device, state.keys.public)
            try:
                open_chunk(envelope.body, envelope.envelope_id, opening)
            except AuthenticationFailed:
                continue  # a body that was swapped: the receipts tell, no key does
            found.append((envelope, opening))
    return found
