"""The catalogue of cheats: what each does, which real case it stands for, which check must catch it.

docs/controls.md shows this table to readers; a test keeps the two equal. A mutant counts only if its cheat works
(`proof` finds the leak in the disclosure by itself) and the honest twin passes the same check.
"""

from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from sim.mutants.key_plants import image_holds_keys
from sim.mutants.proofs import (
    Proof,
    chain_is_shorter,
    columns_differ,
    config_holds_device_seed,
    date_is_before_the_order,
    device_is_unsigned,
    earlier_chain_differs,
    file_is_not_named,
    image_holds,
    image_holds_device_seed,
    log_holds,
    log_holds_base64,
    log_holds_device_seed,
    log_is_not_the_signed_one,
    log_numbers_spell,
    manifest_is_not_the_cards,
    module_is_listed,
    pin_key_opens,
    prekey_inflates_to_text,
    receipted_body_differs,
    receipted_row_expired_early,
    receipted_row_is_gone,
    rows_end_with_field,
    rows_hold_text,
    rows_share_commitment,
    rows_share_nonce,
    seqs_spell,
    store_holds_message_key,
    store_holds_pieces,
    store_holds_second_copy,
    store_holds_utf16,
    store_inflates_to_text,
    tombstone_has_another_token,
    tombstones_are_gone,
)

__all__ = ["CATALOGUE", "Mutant", "Side"]


@unique
class Side(Enum):
    """Who cheats."""

    RELAY = "relay"
    MEMORY = "relay, in memory"
    CLIENT = "client"
    HISTORICAL = "historical client"


@dataclass(frozen=True)
class Mutant:
    """One cheat.

    Attributes:
        name: as in relay_side.py or client_side.py.
        side: who cheats.
        cheat: what it does.
        stands_for: the real case behind it.
        check: the id of the audit's check that must catch it.
        proof: finds the leak in the disclosure, or raises `CheatFailed`.
        twice: whether an honest disclosure is made before the one that cheats.
    """

    name: str
    side: Side
    cheat: str
    stands_for: str
    check: str
    proof: Proof
    twice: bool = False


CATALOGUE: Final = (
    Mutant(
        "plaintext-in-log",
        Side.RELAY,
        "writes each text into its log",
        "debug logging left on, as with the passwords in the internal logs of Twitter (2018) and Facebook (2019)",
        "search.canaries",
        log_holds,
    ),
    Mutant(
        "base64-in-log",
        Side.RELAY,
        "writes each text into its log as the base64 id of a trace",
        "telemetry that encodes what it must not hold",
        "log.grammar",
        log_holds_base64,
    ),
    Mutant(
        "plaintext-in-memory",
        Side.MEMORY,
        "keeps each text in its memory and writes nothing down",
        "a server that decrypts in passing, as a hosted mail gateway does, and could be told to keep it",
        "search.canaries",
        image_holds,
    ),
    Mutant(
        "device-key-in-memory",
        Side.MEMORY,
        "holds the private key of a customer's device in memory only",
        "a hosted BES that keeps its customers' transport keys",
        "search.secrets",
        image_holds_device_seed,
    ),
    *(
        Mutant(
            name, Side.MEMORY, f"keeps a key of each kind {where}", stands_for, "search.windows", image_holds_keys(name)
        )
        for name, where, stands_for in (
            (
                "keys-mid-heap",
                "in the middle of a heap block",
                "keys held in a server's memory, as Heartbleed (2014) showed",
            ),
            (
                "keys-in-freed-block",
                "in memory that was freed and not erased",
                "keys that outlive their use, as in the cold-boot attacks of 2008",
            ),
            (
                "keys-in-thread-stack",
                "on the stack of a thread that waits",
                "a key in use at the moment of seizure",
            ),
            (
                "keys-as-hexadecimal",
                "as hexadecimal digits in a string",
                "keys handed around as text between services",
            ),
            ("keys-as-base64", "as base64", "keys in JSON, as key servers answer with them"),
            ("keys-in-zlib", "among text in a zlib stream", "a compressed cache or response that holds keys"),
        )
    ),
    Mutant(
        "message-keys-in-store",
        Side.RELAY,
        "keeps the key of each waiting message among its settings",
        "key escrow; Ennetcom, whose server kept the keys of 3.6 million messages",
        "search.keys",
        store_holds_message_key,
    ),
    Mutant(
        "private-key-in-config",
        Side.RELAY,
        "has a customer's private key in its configuration",
        "a key handed over under an order and installed, as was asked of Lavabit (2013)",
        "search.keys",
        config_holds_device_seed,
    ),
    Mutant(
        "device-key-in-log",
        Side.RELAY,
        "writes a private key into its log as a request id",
        "credentials that leak through logs",
        "search.secrets",
        log_holds_device_seed,
    ),
    Mutant(
        "numbers-in-log",
        Side.RELAY,
        "writes each text into its log as counts of refusals, seven bytes a line",
        "a covert channel: what leaves in the numbers of statistics that everybody may see",
        "log.grammar",
        log_numbers_spell,
    ),
    Mutant(
        "shuffled-ids",
        Side.RELAY,
        "keeps a text as the ids of used activations, twelve bytes in each, in another order",
        "steganography by a server: a database that looks like random names",
        "search.canaries",
        store_holds_pieces,
    ),
    Mutant(
        "text-in-row-numbers",
        Side.RELAY,
        "keeps a text in the row numbers of its mailboxes, five bytes in each",
        "the same where only a format's own numbers are left to write in",
        "store.directory",
        seqs_spell,
    ),
    Mutant(
        "deflate-in-prekey",
        Side.RELAY,
        "keeps a text in the place of a prekey, compressed without a header",
        "a cache that strips what would name its format",
        "search.canaries",
        prekey_inflates_to_text,
    ),
    Mutant(
        "extra-column",
        Side.RELAY,
        "has one column more, which names the sender of each envelope",
        "data retention that was added without a word",
        "store.schema",
        columns_differ,
    ),
    Mutant(
        "zlib-in-table",
        Side.RELAY,
        "has a table of its own with the texts, compressed",
        "a cache or search index beside the database",
        "search.canaries",
        store_inflates_to_text,
    ),
    Mutant(
        "utf16-in-free-pages",
        Side.RELAY,
        "deleted texts without erasing them: they lie in free pages, as UTF-16",
        "forensics on phones and servers, which read what SQLite deleted and did not overwrite",
        "search.canaries",
        store_holds_utf16,
    ),
    Mutant(
        "deleted-not-erased",
        Side.RELAY,
        "keeps ciphertext in free pages that outlives the erasure of its envelope",
        "backups and free space that outlive a deletion, and wait for a key to be found",
        "bytes.accounted",
        store_holds_second_copy,
    ),
    Mutant(
        "hidden-field",
        Side.CLIENT,
        "appends a field to each body that says who sent it",
        "a tracking field in a message format",
        "store.envelopes",
        rows_end_with_field,
    ),
    Mutant(
        "skips-encryption",
        Side.CLIENT,
        "pads the text and does not encrypt it",
        "a changed client, as Hushmail served one in 2007",
        "search.canaries",
        rows_hold_text,
    ),
    Mutant(
        "constant-key",
        Side.CLIENT,
        "encrypts every message under one key",
        "a cipher with a key built in, as the first Zoom meetings shared one",
        "store.envelopes",
        rows_share_commitment,
    ),
    Mutant(
        "nonce-reused",
        Side.CLIENT,
        "uses the same nonce for every message",
        "a random number generator that repeats itself, as Debian's OpenSSL did (2006 to 2008)",
        "store.envelopes",
        rows_share_nonce,
    ),
    Mutant(
        "global-pin-key",
        Side.HISTORICAL,
        "scrambles every message under the Triple DES key that sits in all handsets",
        "BlackBerry's PIN messages and BBM; the RCMP read over a million of them, 2010 to 2012",
        "historical.keys",
        pin_key_opens,
    ),
    Mutant(
        "left-out",
        Side.RELAY,
        "does not hand over one envelope that it has receipted",
        "an answer to an order that holds something back",
        "evidence.receipts",
        receipted_row_is_gone,
    ),
    Mutant(
        "swapped-body",
        Side.RELAY,
        "hands over another body in the place of one that it has receipted",
        "evidence that was altered before it was handed over",
        "store.commits",
        receipted_body_differs,
    ),
    Mutant(
        "truncated-history",
        Side.RELAY,
        "takes the newest commit out of its history; what is left fits together",
        "a database restored to the day before",
        "evidence.receipts",
        chain_is_shorter,
    ),
    Mutant(
        "forked-history",
        Side.RELAY,
        "signs the newest commit a second time, for another body",
        "a log that shows different histories to different people",
        "evidence.receipts",
        receipted_body_differs,
    ),
    Mutant(
        "tombstones-hidden",
        Side.RELAY,
        "hands over no tombstone, so that nobody sees what was acknowledged",
        "a server that hides that it ever held what it deleted",
        "evidence.receipts",
        tombstones_are_gone,
    ),
    Mutant(
        "invented-ack",
        Side.RELAY,
        "takes out an envelope and says that it was acknowledged, with a t of its own making",
        "a delivery that was invented: records that say 'delivered' of what was not",
        "evidence.receipts",
        tombstone_has_another_token,
    ),
    Mutant(
        "expires-early",
        Side.RELAY,
        "erases an envelope weeks before the expiry that it signed for",
        "a retention period that was shortened in silence, as when deleted mail was not there to be handed over",
        "evidence.receipts",
        receipted_row_expired_early,
    ),
    Mutant(
        "rewritten-history",
        Side.RELAY,
        "is asked twice, and the second disclosure tells another history than the first",
        "answers to two orders that do not fit together",
        "history.earlier",
        earlier_chain_differs,
        twice=True,
    ),
    Mutant(
        "dated-back",
        Side.RELAY,
        "dates the disclosure an hour back, so that its newest receipts look as if they came after it",
        "an answer that was prepared before it was asked for, or says so",
        "manifest.signature",
        date_is_before_the_order,
    ),
    Mutant(
        "forged-manifest",
        Side.RELAY,
        "somebody else signs the disclosure in the relay's name",
        "an answer from a party that is not the one that was asked",
        "manifest.signature",
        manifest_is_not_the_cards,
    ),
    Mutant(
        "extra-file",
        Side.RELAY,
        "lays a file beside those of the manifest",
        "a second database that nobody signed for",
        "manifest.files",
        file_is_not_named,
    ),
    Mutant(
        "log-tidied",
        Side.RELAY,
        "takes a line out of the log after the manifest was signed",
        "records tidied up before they are handed over",
        "manifest.files",
        log_is_not_the_signed_one,
    ),
    Mutant(
        "unsigned-device",
        Side.RELAY,
        "adds a device to an account's list, which the account has not signed",
        "the ghost proposal of 2018: a silent participant added by the server",
        "store.directory",
        device_is_unsigned,
    ),
    Mutant(
        "ratchet-loaded",
        Side.RELAY,
        "has loaded the code that opens messages",
        "a server with a decryption module, as lawful-access gateways have",
        "process.modules",
        module_is_listed,
    ),
)
