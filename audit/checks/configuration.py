"""The configuration has the keys of the protocol, and none of them is a secret (protocol.md sections 2.7 and 11)."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

from audit import disclosure as names
from audit.case import Case
from audit.disclosure import printable
from audit.outcome import About, Outcome
from audit.schema import ByteClass

ABOUT = About(
    "config.grammar",
    "the configuration has only the keys of the protocol",
    "No key, password or path stands in it: every line is one known setting, without a comment.",
    "That the relay has no other configuration: its command line and environment are searched in the memory "
    "image only.",
    "2.7, 11",
)
CONFIG_KEYS: Final = {
    "protocol": int,
    "listen": str,
    "broker": str,
    "partition": int,
    "retention_s": int,
    "mailbox_envelopes_max": int,
    "mailbox_bytes_max": int,
}
CARD_KEYS: Final = {"protocol": int, "relay_id": str, "signing_key": str, "broker": str, "partition": int}
LINE_BYTES_MAX: Final = 300
_LINE = re.compile(rb'([a-z_]+) = (0|[1-9][0-9]{0,19}|"[\x21\x23-\x5b\x5d-\x7e]*")')
_SCHEMES: Final = frozenset({"mqtt", "mqtts", "nats", "tls"})
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_LISTEN = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}:[0-9]{1,5}")


def _line_class(line: bytes, seen: set[bytes]) -> tuple[str, int, int] | None:
    """Return the key, and where its value begins and ends in the line; None if the line is no setting."""
    match = _LINE.fullmatch(line)
    if match is None or len(line) > LINE_BYTES_MAX or match[1] in seen:
        return None
    seen.add(match[1])
    key = match[1].decode()
    wanted = CONFIG_KEYS.get(key) or CARD_KEYS.get(key)
    if wanted is None or (wanted is str) != line[match.start(2) :].startswith(b'"'):
        return None
    return key, match.start(2), match.end(2)


def classify(config: bytes) -> Counter[ByteClass]:
    """Class the bytes of a configuration file or card: keys are format, values metadata or a public key."""
    classes: Counter[ByteClass] = Counter()
    seen: set[bytes] = set()
    for line in config.splitlines(keepends=True):
        bare = line.removesuffix(b"\n")
        found = _line_class(bare, seen)
        if found is None:
            classes[ByteClass.FORMAT if line == b"\n" else ByteClass.UNEXPLAINED] += len(line)
            continue
        key, start, end = found
        value_class = ByteClass.PUBLIC_KEY if key == "signing_key" else ByteClass.METADATA
        classes[value_class] += end - start
        classes[ByteClass.FORMAT] += len(line) - (end - start)
    return classes


def check(case: Case, outcome: Outcome) -> None:
    """Check both files."""
    for path, keys in ((names.CONFIG, CONFIG_KEYS), (names.CARD, CARD_KEYS)):
        if path not in case.disclosure.files:
            outcome.miss(path)
            continue
        data = case.disclosure.small(path)
        _check_lines(path, data, outcome)
        try:
            values = tomllib.loads(data.decode())
        except (ValueError, RecursionError):
            outcome.fail(path, "is no TOML in UTF-8")
            continue
        for key in sorted(set(values) - set(keys)):
            outcome.fail(path, f"has a setting that the protocol does not know: {printable(key)!r}")
        for key, value in values.items():
            if key in {"broker", "listen"} and isinstance(value, str):
                _check_address(path, key, value, outcome)
        outcome.figures[f"settings in {path}"] = len(values)
        if path == names.CONFIG:
            _check_settings(case, values, outcome)
    card = case.card
    disclosed = case.disclosed_card
    if card is not None and disclosed is not None and disclosed.signing_key != card.signing_key:
        outcome.fail(names.CARD, "its signing key is not that of the card given")
    outcome.evidence = "every line of both files is one known setting"


def _check_lines(path: str, data: bytes, outcome: Outcome) -> None:
    seen: set[bytes] = set()
    for number, line in enumerate(data.splitlines(), start=1):
        if line and _line_class(line, seen) is None:
            outcome.fail(f"{path}, line {number}", "is no setting of the protocol in its plain form")


def _check_address(path: str, key: str, value: str, outcome: Outcome) -> None:
    """A URL can carry a password in front of the host, or a token behind it."""
    if key == "listen":
        if not _LISTEN.fullmatch(value):
            outcome.fail(path, "listen is no host and port")
        return
    try:
        url = urlsplit(value)
        carries = url.username or url.password or url.query or url.fragment or url.path not in {"", "/"}
        host = url.hostname or ""
    except ValueError:
        outcome.fail(path, "broker is no URL")
        return
    if carries:
        outcome.fail(path, "broker carries a user name, password, path, query or fragment")
    elif url.scheme not in _SCHEMES or not _HOST.fullmatch(host):
        outcome.fail(path, "broker is not SCHEME://HOST:PORT")


def _check_settings(case: Case, values: dict[str, object], outcome: Outcome) -> None:
    if case.manifest is None:
        return
    for key, signed in zip(
        ("retention_s", "mailbox_envelopes_max", "mailbox_bytes_max"), case.manifest.settings, strict=True
    ):
        if key in values and values[key] != signed:
            outcome.fail(names.CONFIG, f"{key} is {values[key]!r}, the manifest says {signed}"[:200])
