"""`blindpost prove`: the experiments behind the claims, one command each, and all of them with a signed statement."""

from collections.abc import Callable
from typing import Final

from blindpost.parser import Parser, Subparsers, add_family
from blindpost.proving import (
    completeness,
    controls,
    erased,
    everything,
    evidence,
    game,
    generations,
    keysearch,
    noninterference,
    stolen_keys,
)

__all__ = ["EXPERIMENTS", "add_commands"]

EXPERIMENTS: Final[tuple[Callable[["Subparsers[Parser]"], None], ...]] = (
    controls.add_command_to,
    keysearch.add_command_to,
    noninterference.add_command_to,
    game.add_command_to,
    completeness.add_command_to,
    evidence.add_command_to,
    erased.add_command_to,
    stolen_keys.add_seizure_to,
    stolen_keys.add_harvest_to,
    generations.add_command_to,
    everything.add_all_to,
    everything.add_verify_to,
)
"""What adds each command, in the order in which `prove all` runs them; what they run is loaded when it runs."""


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "prove", "run the experiments behind the claims, each with the twin that must fail")
    for add_experiment in EXPERIMENTS:
        add_experiment(family)
