"""Bends honest disclosures at random, and signs them again, so that what lies behind the signature is reached.

    python -m tests.audit.hostile.fuzzer --seconds 300 --seed 1

Each round takes an honest disclosure, changes a few things of one file (bits, lengths, pages swapped, interesting
numbers where a parser looks), signs it or not, audits it under watch, and asks for a verdict. What it finds is written
to the folder named by `--keep`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import audit
from audit import Verdict
from audit.report_html import render_html
from audit.report_json import render_json
from audit.report_text import render_text
from tests.audit.honest import HonestRelay
from tests.audit.hostile.watch import ForbiddenError, watched

PAGE = 4096
NUMBERS = (0, 1, 2, 4, 5, 8, 13, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
ROUND_S_MAX = 60.0
"""What a round may take: a disclosure of 100 kB takes 0.1 s."""


def bent(data: bytes, rng: random.Random) -> bytes:
    """A file with a few things changed."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not result:
            break
        at = rng.randrange(len(result))
        page = at // PAGE * PAGE
        kind = rng.randrange(9)
        if kind == 0:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del result[at:]
        elif kind == 2:
            del result[at : at + rng.choice((1, 7, 64, PAGE))]
        elif kind == 3:
            result[at:at] = rng.randbytes(rng.choice((1, 5, 64, PAGE)))
        elif kind == 4:
            size = rng.choice((1, 2, 4))
            result[at : at + size] = (rng.choice(NUMBERS) & (256**size - 1)).to_bytes(size, "big")
        elif kind == 5:
            other = rng.randrange(len(result)) // PAGE * PAGE
            result[page : page + PAGE], result[other : other + PAGE] = (
                result[other : other + PAGE],
                result[page : page + PAGE],
            )
        elif kind == 6:
            # The header of a b-tree page, its cell pointers, and the first of an overflow page.
            head = page + rng.randrange(24)
            result[head : head + 2] = rng.choice(NUMBERS).to_bytes(4, "big")[-2:]
        elif kind == 7:
            # A cell's header: sizes and row numbers are varints.
            first = int.from_bytes(result[page + 8 : page + 10], "big")
            cell = page + min(first, PAGE - 9) + rng.randrange(9)
            result[cell : cell + 1] = bytes((rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))),))
        else:
            result[at : at + 64] = result[rng.randrange(len(result)) :][:64]
    return bytes(result)


def one_round(honest: Path, folder: Path, relay: HonestRelay, rng: random.Random) -> Verdict:
    """Bend, maybe sign, audit and render; whatever is raised is a fault of the verifier."""
    shutil.copytree(honest, folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    store = folder / "store/store.sqlite"
    for path in [*rng.sample(paths, rng.choice((0, 0, 1))), rng.choice((store, rng.choice(paths)))]:
        path.write_bytes(bent(path.read_bytes(), rng))
    if rng.random() < 0.8:
        relay.sign_manifest(folder)
    with watched():
        report = audit.run(
            folder,
            card=relay.card if rng.random() < 0.9 else None,
            canaries=[b"a canary that is not in there"],
            volunteered=[relay.volunteer([*map(relay.receipt_item, relay.letters[:2]), *relay.secret_items()])],
        )
        text, page = render_text(report), render_html(report)
        render_json(report)
    if any(ord(character) < 32 and character != "\n" for character in text) or "<script" in page:
        raise AssertionError("the report holds what drives a terminal or a browser")
    return report.verdict


def main(arguments: list[str] | None = None) -> int:
    """Run for a time; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where to keep disclosures that broke the verifier")
    options = parser.parse_args(arguments)
    relay = HonestRelay(people=2, one_time_prekeys=1).story_of_two()
    until, number, found = time.monotonic() + options.seconds, 0, 0
    verdicts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
    with tempfile.TemporaryDirectory() as name:
        honest = relay.disclose(Path(name) / "honest")
        while time.monotonic() < until:
            folder, seed = Path(name) / "bent", options.seed * 1_000_000 + number
            number += 1
            start = time.monotonic()
            try:
                verdicts[one_round(honest, folder, relay, random.Random(seed))] += 1
                if time.monotonic() - start > ROUND_S_MAX:
                    raise TimeoutError(f"{time.monotonic() - start:.0f} s")
            except (Exception, ForbiddenError):
                found += 1
                sys.stderr.write(f"seed {seed}:\n{traceback.format_exc()}\n")
                if options.keep:
                    shutil.copytree(folder, options.keep / str(seed), dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
    told = ", ".join(f"{count} {verdict.value}" for verdict, count in verdicts.items())
    print(f"{number} disclosures: {told}; {found} broke the verifier")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
