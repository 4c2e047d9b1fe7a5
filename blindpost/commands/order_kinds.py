"""The kinds of order as commands: their words, in the order in which docs/orders.md has them."""

from typing import Final, NamedTuple

__all__ = ["KINDS", "Kind"]


class Kind(NamedTuple):
    """One kind of order, as a command."""

    name: str
    summary: str
    description: str
    about: str
    out: str = ""


KINDS: Final = (
    Kind(
        "wholesale",
        "have everything handed over: store, log, configuration, and the memory image",
        "The relay hands over all that it has, as a directory with a signed manifest: while it runs through "
        "control.sock in its folder, while it does not from its store. A copy of the relay's card is laid beside, "
        "as DIR/relay-card.toml, and when you asked and were served, as DIR/order.toml; these two are yours and no "
        "part of the disclosure. With --memory a process of its own stops the relay for a moment and copies its "
        "memory; the relay changes its signing key afterwards.",
        "all",
        "DIR",
    ),
    Kind(
        "seizure",
        "the machines themselves: the same disclosure, under another name",
        "What a seized machine holds is handed over as for a wholesale order.",
        "all",
        "DIR",
    ),
    Kind(
        "content",
        "stored content of one person",
        "The relay answers what it has: ciphertext of what that person has not fetched yet, and no key. With --out it "
        "is written to a file, one MessagePack array an envelope: row, mailbox, number, id, expiry, body.",
        "person",
        "FILE",
    ),
    Kind(
        "interception",
        "content that passes from now on",
        "Contested by default: what passes is ciphertext. Where policy.toml says honour, the running relay has "
        "it recorded into --out until --until: each event of an envelope of these mailboxes with time, the link's "
        "devices, mailbox and padded size, and the ciphertext. SIGTERM and Ctrl-C are a pause, `blindpost order "
        "capture` goes on or finishes; the answer comes at the end.",
        "anybody",
        "RECORDS",
    ),
    Kind(
        "subscriber",
        "what is on record about one person",
        "Each column that the relay holds about the person, as its schema lists them; `blindpost mydata` gives the "
        "person the same bytes. It is shown; with --out it is written to a file instead.",
        "person",
        "FILE",
    ),
    Kind(
        "metadata",
        "who wrote to whom and when, in the past",
        "The relay keeps no record of that, and says so.",
        "person",
    ),
    Kind(
        "pen-register",
        "who writes to whom and when, from now on",
        "Contested by default. Where policy.toml says honour, the running relay has it recorded into --out until "
        "--until: each event of an envelope of these mailboxes with time, the link's devices, mailbox and padded size, "
        "and no body. SIGTERM and Ctrl-C are a pause, `blindpost order capture` goes on or finishes; the answer comes "
        "at the end.",
        "person",
        "RECORDS",
    ),
    Kind(
        "preservation",
        "delete nothing of a mailbox for a time",
        "Expiry and deletion stop for the mailboxes of the person or company until --until, at most 180 days.",
        "somebody",
    ),
    Kind(
        "keys",
        "hand over keys, or put them in escrow",
        "Refused by default: no key that opens content is held. The answer says which keys do exist.",
        "anybody",
    ),
    Kind(
        "decrypt",
        "decrypt, or remove the protection",
        "Refused: the relay can decrypt nothing.",
        "anybody",
    ),
    Kind(
        "weakness",
        "build a weakness or a new capability",
        "Refused; the answer says what such an order could still ask for.",
        "anybody",
    ),
    Kind(
        "ghost",
        "add a device, or swap a key, without the person's knowledge",
        "Refused; the answer says who would notice an attempt, and when nobody would.",
        "person",
    ),
    Kind(
        "secrecy",
        "tell nobody",
        "The text is sealed in the log until --secret-until; that there is an order is not.",
        "anybody",
    ),
    Kind(
        "leave",
        "close the service in the country, or move it there",
        "Puts the demand on the docket. What follows from it is announced with `blindpost order exit`.",
        "all",
    ),
)
