"""Every limit of the protocol, in one place (protocol.md section 1.7).

Both sides enforce these; a refusal names the limit that it enforced. Units are in the names.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
SUITE: Final = 1

# 256 KiB: MQTT carries it through amqtt, Mosquitto and NATS without changed settings on the last two.
FRAME_BYTES_MAX: Final = 262_144
COMMANDS_PER_FRAME_MAX: Final = 256

ID_BYTES: Final = 16
KEY_BYTES: Final = 32
HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ML_KEM_768_PUBLIC_BYTES: Final = 1_184
ML_KEM_768_CIPHERTEXT_BYTES: Final = 1_088

# The smallest ordinary body: 144 bytes of prefix and tag around 256 bytes of padded content.
BODY_BYTES_MIN: Final = 400
# The largest chunk: 88 bytes around 192 KiB. It fits a frame with room for its command.
BODY_BYTES_MAX: Final = 196_696
INLINE_CONTENT_BYTES_MAX: Final = 65_536
CHUNK_BYTES_MIN: Final = 32_768
CHUNK_BYTES_MAX: Final = 196_608
CHUNK_BYTES_STEP: Final = 1_024
MESSAGE_BYTES_MAX: Final = 26_214_400

EXPIRY_S_MAX: Final = 30 * 86_400
CLOCK_SKEW_S: Final = 300
SEEN_S: Final = 37 * 86_400

ACCOUNT_BYTES_MAX: Final = 254
DOMAIN_BYTES_MAX: Final = 253
LOCAL_BYTES_MAX: Final = 64
DOMAIN_LABEL_BYTES_MAX: Final = 63
AUDIENCE_MAX: Final = 256

DEVICES_PER_ACCOUNT_MAX: Final = 16
DEVICES_PER_LINK_MAX: Final = 256
ENVELOPES_PER_SUBMIT_MAX: Final = 64
TOKENS_PER_ACK_MAX: Final = 256
CREDIT_MAX: Final = 1_024
ONE_TIME_PREKEYS_PER_UPLOAD_MAX: Final = 64
ONE_TIME_PREKEYS_KEPT_MAX: Final = 128
ONE_TIME_PREKEYS_LOW: Final = 20
PREKEY_ROTATION_S: Final = 7 * 86_400
PREKEY_GRACE_S: Final = 7 * 86_400

# What is held about an account, as a record (wire/held.py), and as much of it as one answer carries.
HELD_BYTES_MAX: Final = 67_108_864
HELD_PIECE_BYTES_MAX: Final = 65_536

SKIPPED_KEYS_PER_GAP_MAX: Final = 1_000
SKIPPED_KEYS_PER_SESSION_MAX: Final = 2_000
SKIPPED_KEYS_S: Final = 7 * 86_400

HINTS_CURRENT: Final = 64
HINTS_NEXT: Final = 8
HINT_SEARCH_MAX: Final = 2_000

# A sealed sender is 16 devices of about 90 bytes, an address and signatures at most.
SEALED_STEP_BYTES: Final = 256
SEALED_STEPS_MAX: Final = 16
# A signed list is bounded by its parts; this is what a decoder accepts before it looks inside.
SIGNED_LIST_BYTES_MAX: Final = 4_096
# RFC 9162 paths of commits with up to 2^32 leaves.
PATH_HASHES_MAX: Final = 32
ROTATIONS_MAX: Final = 256
REFUSAL_FIELD_BYTES_MAX: Final = 128

PADDED_BYTES_MIN: Final = 256

UINT64_MAX: Final = 2**64 - 1
UINT32_MAX: Final = 2**32 - 1
UINT16_MAX: Final = 2**16 - 1

# Links: handshake token buckets (protocol.md section 6.2).
HELLO_BURST_PER_TOPIC: Final = 5
HELLO_PER_S_PER_TOPIC: Final = 1
HELLO_BURST_PER_RELAY: Final = 200
HELLO_PER_S_PER_RELAY: Final = 200
HANDSHAKE_MS_MAX: Final = 10_000
RETRY_FIRST_MS: Final = 2_000
RETRY_LAST_MS: Final = 60_000
REDELIVERY_FIRST_MS: Final = 5_000
REDELIVERY_LAST_MS: Final = 60_000
