"""Large messages on their way out, chunk by chunk (protocol.md section 8).

Each recipient device gets the chunks under a file key of its own. A chunk is read from its sealed row, encrypted and
submitted when the window has room, a few at a time; which chunks have receipts is durable, so that a restart goes on
where it was. When all have theirs, the outbox sends the manifest. A chunk's nonce is a function of a random seed that
is durable before the first chunk leaves: a chunk that goes again has the same bytes, as the relay asks of a repetition.
"""

from collections import deque
from hashlib import sha256

from msgspec.structs import replace

from client.attachments import Manifest, encode_manifest, plan_chunks
from client.content import Kind as ContentKind
from client.records import Outgoing, Prepared, Upload
from client.state import State
from client.store import Kind, Step
from keys.chunks import FileKey
from wire.codec import decode, encode
from wire.envelope import Envelope
from wire.hashing import keyed
from wire.identity import DeviceEntry
from wire.limits import ID_BYTES, KEY_BYTES

__all__ = ["Uploads"]


class Uploads:
    """The uploads of a device's outbox.

    Args:
        state: the device's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._rows = {name: decode(Upload, value, "upload") for name, value in state.store.items(Kind.UPLOAD)}
        self._todo: dict[bytes, deque[int]] = {}
        self._expiry: dict[bytes, int] = {}
        for name, value in state.store.items(Kind.OUTGOING):
            row = decode(Outgoing, value, "outgoing")
            self._expiry[name] = row.expiry
            for key in self._rows:
                if key[:ID_BYTES] == name:
                    self._queue(key, row)

    def _queue(self, key: bytes, row: Outgoing) -> None:
        count = plan_chunks(row.size).chunk_count
        receipted = set(self._rows[key].receipted)
        self._todo[key] = deque(index for index in range(count) if index not in receipted)

    @staticmethod
    def digest_of(payload: bytes) -> bytes:
        """What the manifest names of a payload."""
        return sha256(payload).digest()

    def is_complete(self, step: Step, key: bytes, row: Outgoing, account: str, entry: DeviceEntry) -> bool:
        """Whether every chunk for this device has its receipt; begins the upload if it has not begun."""
        upload = self._rows.get(key)
        if upload is None:
            random = self._state.random
            upload = Upload(account, entry.device_key, random(KEY_BYTES), random(KEY_BYTES), ())
            step.put(Kind.UPLOAD, key, encode(upload))
            self._rows[key] = upload
            self._expiry[key[:ID_BYTES]] = row.expiry
            self._queue(key, row)
        return len(upload.receipted) == plan_chunks(row.size).chunk_count

    def next_chunk(self) -> tuple[bytes, int, Prepared] | None:
        """The next chunk to submit, encrypted: key of its upload, number, envelope; None if there is none."""
        for key, todo in self._todo.items():
            if todo:
                index = todo.popleft()
                return key, index, self._sealed(key, index)
        return None

    def _sealed(self, key: bytes, index: int) -> Prepared:
        upload = self._rows[key]
        chunk = self._state.store.get(Kind.PAYLOAD, key[:ID_BYTES] + index.to_bytes(4, "big"))
        assert chunk is not None, "payload rows live as long as their message"
        file_key = FileKey(upload.file_key)

        def nonce(size: int) -> bytes:
            return keyed(upload.nonce_seed, b"bp1-chunk-nonce", index.to_bytes(4, "big"), size)

        body = file_key.seal(index, chunk, self._state.keys.public, upload.device_key, nonce)
        envelope = Envelope(key[ID_BYTES:], file_key.envelope_id(index), self._expiry[key[:ID_BYTES]], body)
        return Prepared(upload.account, upload.device_key, file_key.token(index), envelope)

    def again(self, key: bytes, index: int) -> None:
        """This chunk was refused with its submit: it goes again."""
        if key in self._todo:
            self._todo[key].appendleft(index)

    def receipted(self, step: Step, key: bytes, index: int, token: bytes) -> bool:
        """The chunk of that ack token has its receipt, within a step; True if none is left to submit."""
        upload = self._rows.get(key)
        # A chunk that left before the upload began again belongs to another file key, and counts for nothing.
        if upload is None or FileKey(upload.file_key).token(index) != token:
            return False
        upload = replace(upload, receipted=tuple(sorted({*upload.receipted, index})))
        step.put(Kind.UPLOAD, key, encode(upload))
        self._rows[key] = upload
        return not self._todo[key]

    def manifest_payload(self, key: bytes, row: Outgoing) -> bytes:
        """The payload of the manifest for this device."""
        plan = plan_chunks(row.size)
        manifest = Manifest(
            ContentKind(row.kind),
            row.size,
            plan.chunk_count,
            plan.chunk_bytes,
            row.digest,
            self._rows[key].file_key,
        )
        return encode_manifest(manifest)

    def restart(self, step: Step, key: bytes) -> None:
        """The relay has one of these envelope ids with other content: begin again under a fresh file key."""
        self.drop(step, key)

    def drop(self, step: Step, key: bytes) -> None:
        """Forget an upload, within a step."""
        self._rows.pop(key, None)
        self._todo.pop(key, None)
        step.delete(Kind.UPLOAD, key)

    def drop_others(self, step: Step, account: str, mailboxes: set[bytes]) -> None:
        """Forget uploads to devices that left this account's list."""
        for key, upload in list(self._rows.items()):
            if upload.account == account and key[ID_BYTES:] not in mailboxes:
                self.drop(step, key)

    def drop_message(self, step: Step, name: bytes, row: Outgoing) -> None:
        """Forget a message's uploads and its payload."""
        for key in [key for key in self._rows if key[:ID_BYTES] == name]:
            self.drop(step, key)
        self._expiry.pop(name, None)
        for index in range(plan_chunks(row.size).chunk_count):
            step.delete(Kind.PAYLOAD, name + index.to_bytes(4, "big"))
