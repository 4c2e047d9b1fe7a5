"""All that the checks look at, read once: the disclosure's parts, and what participants gave.

What cannot be read is None here, with the reason in `problems`; the checks that need it say so. Nothing in this file
judges.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Final

from audit import disclosure as names
from audit.crypto import envelope_id_of, tombstone_key_of
from audit.disclosure import BLOCK_BYTES, Disclosure, printable
from audit.encodings import canary_needles, decoded_runs, secret_needles
from audit.errors import AuditError
from audit.image import Mapping as MemoryMapping
from audit.image import read_ranges
from audit.manifest import Header, KeyRing, Manifest, build_key_ring, read_header, read_manifest
from audit.material import Material, Opening, OrderTimes, RelayCard, read_card
from audit.needles import INFLATE_WORK_BYTES_MAX, Finder, Hit, Needle, SearchFigures
from audit.rows import EnvelopeRow, LiveEnvelopes, RowsByKey, StoredRow
from audit.scattered import pieces_of, scattered
from audit.schema import ByteClass
from audit.sqlite_file import PAGE_BYTES
from audit.store import ROWS_BYTES_MAX, Store, read_store

if TYPE_CHECKING:
    from audit.keysearch import Coverage, KeySearchSettings

_LINE_PARTS: Final = re.compile(rb"[\n =\"]")
THOROUGH: Final = "audit with --thorough, which has no bounds, and takes its time"


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What one pass over all files found."""

    hits: dict[str, list[Hit]]
    figures: SearchFigures
    needle_count: int
    not_searched: tuple[int, ...]
    streams_left_out: Counter[str]
    """Compressed streams that were not tried, or not to their end, by file."""


@dataclass(frozen=True, slots=True)
class ReadMessage:
    """A message that a key opened, for the report."""

    where: str
    who: str
    text: str


def canaries_of(material: Material) -> list[Opening]:
    """Texts to look for: openings and the plain list, each once."""
    known: dict[bytes, Opening] = {}
    for canary in [*material.openings, *material.canaries]:
        known.setdefault(canary.text, canary)
    return list(known.values())


def secrets_of(material: Material) -> list[tuple[str, bytes]]:
    """Secrets to look for: what was volunteered as such, message keys, and historical keys."""
    secrets = [(f"{item.who}: {item.name}", item.secret) for item in material.secrets]
    secrets += [
        (f"{item.who}: message key of envelope {item.envelope_id.hex()[:8]}…", item.message_key)
        for item in material.message_keys
    ]
    secrets += [(f"{item.who}: key of suite {item.suite:#06x}", item.key) for item in material.historical_keys]
    known: dict[bytes, str] = {}
    for name, secret in secrets:
        known.setdefault(secret, name)
    return [(name, secret) for secret, name in known.items()]


def needles_of(canaries: list[Opening], secrets: list[tuple[str, bytes]]) -> tuple[list[Needle], list[int]]:
    """What to look for, canaries first; and the positions of those that are too short or too regular for it."""
    needles: list[Needle] = []
    not_searched = []
    forms = [canary_needles(canary.text) for canary in canaries]
    forms += [secret_needles(secret) for _, secret in secrets]
    for subject, subject_forms in enumerate(forms):
        if not subject_forms:
            not_searched.append(subject)
        needles.extend(Needle(needle, subject, form) for form, needle in subject_forms)
    return needles, not_searched


@dataclass
class Case:
    """One audit's material; made by `open_case`."""

    disclosure: Disclosure
    material: Material
    card: RelayCard | None
    order: OrderTimes | None = None
    thorough: bool = False
    """Whether searches go on beyond their bounds."""
    earlier: Case | None = None
    """Another disclosure of the same relay, made before."""
    manifest: Manifest | None = None
    store: Store | None = None
    disclosed_card: RelayCard | None = None
    key_ring: KeyRing | None = None
    mappings: list[MemoryMapping] = field(default_factory=list)
    image_pid: int | None = None
    problems: dict[str, AuditError] = field(default_factory=dict)
    accounts: dict[str, Counter[ByteClass]] = field(default_factory=dict)
    read_messages: list[ReadMessage] = field(default_factory=list)
    key_search: KeySearchSettings | None = None
    """How to search for keys that nobody volunteered; None: not at all."""
    key_coverage: Coverage | None = None
    """What that search looked at and found."""

    @property
    def taken_at(self) -> int | None:
        """When the relay says that it took the disclosure, in Unix seconds."""
        return self.manifest.taken_at if self.manifest else None

    @cached_property
    def headers(self) -> dict[int, Header]:
        """The commit headers of the store that decode, by index."""
        headers = {}
        for row in self.store.tables["commits"] if self.store else []:
            try:
                headers[row.seq] = read_header(row.blob("header"), f"commit {row.seq}")
            except AuditError as error:
                self.problems[f"commit {row.seq}"] = error
        return headers

    @cached_property
    def live(self) -> Mapping[tuple[bytes, bytes], EnvelopeRow]:
        """Live envelopes by mailbox and envelope id."""
        return LiveEnvelopes(self.store.envelopes) if self.store else {}

    @cached_property
    def tombstones(self) -> Mapping[bytes, StoredRow]:
        """Tombstones by key."""
        return RowsByKey(self.store.tables["tombstones"], "key") if self.store else {}

    def tombstone_of(self, mailbox: bytes, envelope_id: bytes) -> StoredRow | None:
        """The tombstone of an envelope, if there is one."""
        return self.tombstones.get(tombstone_key_of(mailbox, envelope_id))

    @cached_property
    def preserved(self) -> dict[bytes, tuple[int, int]]:
        """Mailboxes for which the table `relay` states a preservation: until when, and the order's leaf (section 9)."""
        found: dict[bytes, tuple[int, int]] = {}
        if self.store is None:
            return found
        known = {row.blob("mailbox") for row in self.store.tables["mailboxes"]}
        for row in self.store.tables["relay"]:
            value = row.blob("value")
            mailbox = _mailbox_of(row.text("name"))
            if mailbox in known and len(value) == 16:
                found[mailbox] = int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big")
        return found

    @cached_property
    def kept(self) -> dict[bytes, tuple[int, int]]:
        """Rows that a preservation keeps though they were acknowledged: the place in the commits, by tombstone key."""
        if not self.preserved or self.store is None:
            return {}
        keys = (
            (tombstone_key_of(row.mailbox, row.envelope_id), (row.commit_index, row.leaf))
            for row in self.store.envelopes
            if row.mailbox in self.preserved
        )
        return {key: place for key, place in keys if key in self.tombstones}

    @staticmethod
    def proves_erasure(tombstone: StoredRow, mailbox: bytes) -> bool:
        """Whether a tombstone's t leads to its key: only recipient and sender could reveal it (section 5.3)."""
        token = tombstone.blob("token")
        return len(token) == 16 and tombstone_key_of(mailbox, envelope_id_of(token)) == tombstone.blob("key")

    # ------------------------------------------------------------------------------------------------------- search

    @cached_property
    def canaries(self) -> list[Opening]:
        """Texts to look for: openings and the plain list, each once."""
        return canaries_of(self.material)

    @cached_property
    def secrets(self) -> list[tuple[str, bytes]]:
        """Secrets to look for: what was volunteered as such, message keys, and historical keys."""
        return secrets_of(self.material)

    @cached_property
    def scattered(self) -> list[tuple[str, int]]:
        """Values of the store that hold a piece of a canary or secret, in any order; subjects as in `search`."""
        subjects: list[tuple[int, bytes]] = []
        for subject, canary in enumerate(self.canaries):
            text = canary.text.decode(errors="surrogateescape")
            subjects += [(subject, canary.text), (subject, text.encode("utf-16-le", "surrogatepass"))]
        subjects += [(len(self.canaries) + i, secret) for i, (_, secret) in enumerate(self.secrets)]
        pieces = pieces_of([*subjects, *((subject, data[::-1]) for subject, data in subjects)])
        return list(scattered(self.store, pieces)) if self.store and pieces else []

    @cached_property
    def search(self) -> SearchResult:
        """Search every file for every canary and secret, in one pass, and each column of the store as one text.

        Subjects are positions: canaries first, then secrets.
        """
        needles, not_searched = needles_of(self.canaries, self.secrets)
        finder = Finder(needles, inflate=True, work_bytes_max=inf if self.thorough else INFLATE_WORK_BYTES_MAX)
        hits: dict[str, list[Hit]] = {}
        left_out: Counter[str] = Counter()
        for name, found in self._searched(finder) if needles else ():
            if found:
                hits.setdefault(name, []).extend(found)
            if beyond := finder.figures.streams_left_out - left_out.total():
                left_out[name] += beyond
        return SearchResult(hits, finder.figures, len(needles), tuple(not_searched), left_out)

    def _searched(self, finder: Finder) -> Iterator[tuple[str, list[Hit]]]:
        """Search one thing after the other, the small ones first: they would suffer from a bound that is passed."""
        for path in (names.CONFIG, names.CARD, names.LOG, names.MANIFEST):
            if path in self.disclosure.files:
                yield path, finder.search_deflated(self.disclosure.files[path], self._line_starts(path))
                for start, block in self.disclosure.blocks(path):
                    yield path, self._search_decoded(finder, block, start)
        if self.store is not None:
            # A text cut into 16-byte ids stands in no file as a whole.
            for name, values, starts in self.store.column_texts():
                where = f"{names.STORE}, {name}, row after row"
                yield where, finder.search(memoryview(values)) + finder.search_deflated(memoryview(values), starts)
            for start, end in self.store.bounds_outside_ciphertext().tolist():
                yield names.STORE, self._search_decoded(finder, bytes(self.store.data[start:end]), start)
        everything = [*self.disclosure.beside.items(), *self.disclosure.files.items()]
        for path, view in sorted(everything, key=lambda item: len(item[1])):
            yield path, finder.search(view)

    def _line_starts(self, path: str) -> Iterator[int]:
        """Where a text begins, and what follows a line feed, space, equals sign or quotation mark."""
        yield 0
        for start, block in self.disclosure.blocks(path):
            for match in _LINE_PARTS.finditer(block, 0, BLOCK_BYTES):
                yield start + match.end()

    @staticmethod
    def _search_decoded(finder: Finder, data: bytes, start: int) -> list[Hit]:
        """Search what hexadecimal and base64 decode to: a compressed text has no fixed form in them."""
        return [
            Hit(hit.subject, f"{hit.form}, inside hexadecimal or base64", start + at)
            for at, decoded in decoded_runs(data)
            for hit in finder.search(memoryview(decoded))
        ]

    def place(self, path: str, offset: int) -> str:
        """Say where in the disclosure a byte lies."""
        where = f"{printable(path)}, byte {offset}"
        if path == names.STORE:
            return f"{where} (page {offset // PAGE_BYTES + 1})"
        if path == names.IMAGE and self.mappings:
            position = bisect_right([mapping.offset for mapping in self.mappings], offset) - 1
            if position >= 0:
                mapping = self.mappings[position]
                return f"{where} (address {mapping.start + offset - mapping.offset:#x}, {mapping.shown_name})"
        return where


def _mailbox_of(name: str) -> bytes:
    """The mailbox that a name is, in lower-case hexadecimal; empty if it is none."""
    try:
        mailbox = bytes.fromhex(name)
    except ValueError:
        return b""
    return mailbox if len(mailbox) == 16 and mailbox.hex() == name else b""


def open_case(
    disclosure: Disclosure,
    card: RelayCard | None,
    material: Material,
    order: OrderTimes | None = None,
    *,
    thorough: bool = False,
) -> Case:
    """Read what can be read of a disclosure."""
    case = Case(disclosure, material, card, order, thorough)
    for part, read in (
        ("manifest", _read_manifest),
        ("relay card of the disclosure", _read_disclosed_card),
        ("key ring", _read_key_ring),
        ("store", _read_store),
        ("memory ranges", _read_ranges),
    ):
        try:
            read(case)
        except AuditError as error:
            case.problems[part] = error
    return case


def _read_manifest(case: Case) -> None:
    if names.MANIFEST in case.disclosure.files:
        case.manifest = read_manifest(case.disclosure.small(names.MANIFEST))


def _read_disclosed_card(case: Case) -> None:
    if names.CARD in case.disclosure.files:
        case.disclosed_card = read_card(case.disclosure.small(names.CARD), names.CARD)


def _read_key_ring(case: Case) -> None:
    """From the card given; without one, from the disclosed card, which shows only that the parts fit together."""
    card = case.card or case.disclosed_card
    if card is not None and case.manifest is not None:
        case.key_ring = build_key_ring(card.signing_key, card.relay_id, case.manifest.rotations)


def _read_store(case: Case) -> None:
    if names.STORE in case.disclosure.files:
        case.store = read_store(case.disclosure.files[names.STORE], inf if case.thorough else ROWS_BYTES_MAX)


def _read_ranges(case: Case) -> None:
    if names.RANGES in case.disclosure.files:
        case.image_pid, case.mappings = read_ranges(case.disclosure.small(names.RANGES))
