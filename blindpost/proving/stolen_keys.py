"""`blindpost prove seizure` and `prove harvest`: what recorded ciphertext opens for whoever gets keys later."""

import importlib
import tempfile
from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, add_command
from blindpost.proving.shown import add_json, conclude, progress_bar

__all__ = ["add_harvest_to", "add_seizure_to"]


def add_seizure_to(family: "Subparsers[Parser]") -> None:
    """Add `prove seizure`."""
    _add(
        family,
        "seizure",
        "seize a device with its passphrase, and try all recorded ciphertext",
        "Two people write to each other through a real relay; everything is recorded. One device is then seized: "
        "its home is copied, and the adversary has the passphrase. Of the recorded ciphertext nothing opens that "
        "was acknowledged before, and nothing after the next round trip. Two twins must fail: a chain key that "
        "does not move, and a client whose ratchet key never changes.",
        rounds=4,
        rounds_help="how often both write, before the seizure and after the round trip",
    )


def add_harvest_to(family: "Subparsers[Parser]") -> None:
    """Add `prove harvest`."""
    _add(
        family,
        "harvest",
        "give every X25519 private key to an adversary who recorded everything",
        "Four people write to each other through a real relay; everything is recorded, and the adversary is given "
        "the private half of every X25519 key that any device ever makes, as a quantum computer would find it. "
        "Nothing opens. The twin must fail: a handshake that mixes in no ML-KEM secret, where the same adversary "
        "reads all.",
        rounds=3,
        rounds_help="how often everybody writes to everybody",
    )


def _add(
    family: "Subparsers[Parser]", name: str, summary: str, description: str, *, rounds: int, rounds_help: str
) -> None:
    def run(options: Options) -> int:
        experiment = importlib.import_module(f"sim.experiments.{name}")
        with tempfile.TemporaryDirectory(prefix=f"blindpost-{name}-") as folder, progress_bar(name) as told:
            result = experiment.run(Path(folder), max(1, options.rounds), told)
        return conclude(result, options)

    examples = (f"blindpost prove {name}", f"blindpost prove {name} --rounds 10 --json {name}.json")
    parser = add_command(family, name, summary=summary, description=description, examples=examples, run=run)
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"{rounds_help} (default: {rounds})")
    add_json(parser)
