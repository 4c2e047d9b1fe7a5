"""`blindpost safety-number`: what two people compare, by voice or on paper."""

from blindpost.parser import Options, Parser, Subparsers, account, add_command, add_home, seconds
from blindpost.passphrase import add_passphrase_options

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "safety-number",
        summary="print the number to compare with another person, out of band",
        description=(
            "Prints 60 digits made from both accounts' keys. The other person's device prints the same, unless "
            "somebody gave one of you a false key at first contact: nothing else tells you that. Compare them by "
            "voice, in person or on paper, not through the relay."
        ),
        examples=(
            "blindpost safety-number --home ana omar@globex.example",
            "blindpost safety-number --home ana --compared omar@globex.example",
        ),
        run=_safety_number,
    )
    add_home(parser, "your device")
    parser.add_argument("address", type=account, metavar="ADDRESS", help="the other account")
    marks = parser.add_mutually_exclusive_group()
    marks.add_argument("--compared", action="store_true", help="note that you have compared it, and that it is right")
    marks.add_argument(
        "--accept-new-key",
        action="store_true",
        help="the other person's key has changed, and you know from them why: take the new one",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=30.0,
        metavar="S",
        help="where the account is not known yet, wait that many seconds for the relay (default: 30)",
    )
    add_passphrase_options(parser)


def _safety_number(options: Options) -> int:
    from blindpost.handset import open_device, run_async, running
    from client.device import Device
    from client.errors import Unknown

    async def number_of(device: Device) -> str:
        try:
            return device.safety_number(options.address)
        except Unknown:
            await device.look_up(options.address, wait_s=options.wait)
            return device.safety_number(options.address)

    async def tell() -> int:
        async with running(open_device(options)) as device:
            if options.accept_new_key:
                device.trust_new_key(options.address)
            number = await number_of(device)
            if options.compared:
                device.mark_compared(options.address)
            groups = number.split()
            for start in range(0, len(groups), 4):
                print(" ".join(groups[start : start + 4]))
            return 0

    return run_async(tell())
