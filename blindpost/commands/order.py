"""`blindpost order`: play the authority, and be handed everything that the relay has."""

from pathlib import Path

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, home_of

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "order", "play the authority: serve an order on a relay")
    parser = add_command(
        family,
        "wholesale",
        summary="have everything handed over: store, log, configuration, and the memory image",
        description=(
            "The relay hands over all that it has, as a directory with a signed manifest: while it runs through "
            "control.sock in its folder, while it does not from its store. A copy of the relay's card is laid beside, "
            "as DIR/relay-card.toml, and when you asked and were served, as DIR/order.toml; these two are yours and no "
            "part of the disclosure. With --memory a process of its "
            "own stops the relay for a moment and copies its memory; the relay changes its signing key afterwards."
        ),
        examples=(
            "blindpost order wholesale --home relay --out disclosure",
            "blindpost order wholesale --home relay --out disclosure --memory",
        ),
        run=_wholesale,
    )
    add_home(parser, "the relay's folder")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the directory, which is made")
    parser.add_argument("--memory", action="store_true", help="also the memory image of the running relay")


def _wholesale(options: Options) -> int:
    from relay.disclosure import take_wholesale

    home = home_of(options)
    _check_out(options.out)
    disclosure = take_wholesale(home, options.out, memory=options.memory)
    card = options.out / "relay-card.toml"
    print(f"{options.out}: {disclosure.files} files and their signed manifest")
    if disclosure.memory is not None:
        image = disclosure.memory
        print(
            f"{options.out / 'memory'}: {image.image_bytes} bytes of memory in {image.ranges} ranges, "
            f"{image.unreadable} unreadable; the relay has changed its signing key"
        )
    print(f"{card}, {options.out / 'order.toml'}: the relay's card and the times of the order, yours, not part of it")
    print(f"next: blindpost audit {options.out} --relay-card {card} --order {options.out / 'order.toml'}")
    return 0


def _check_out(out: Path) -> None:
    """Refuse before the relay is asked for anything."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise CommandError(f"{out} is not empty", "name a folder that is not there yet", ExitStatus.CANNOT_CREATE)
