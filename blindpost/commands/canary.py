"""`blindpost canary`: commit to a text before it is sent, so that nobody can say later that it was made up."""

from pathlib import Path

from blindpost.files import check_absent, read_bounded, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command, add_home
from blindpost.passphrase import add_passphrase_options

__all__ = ["add_commands"]

_TEXT_BYTES_MAX = 65_536


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "canary",
        summary="commit to a text that you will send, for the verifier",
        description=(
            "Reads a text that nobody has written before from a file, keeps it sealed in the device with a random "
            "number, and writes the hash of both. Give that file to the verifier before you send the text; open the "
            "commitment afterwards with 'blindpost volunteer --canary'. The verifier then knows that this very text "
            "was meant from the start, and looks for it in everything that the relay had."
        ),
        examples=(
            "blindpost canary --home ana --out ana.commitments secret.txt",
            "blindpost canary --home ana --out ana.commitments - < secret.txt",
        ),
        run=_canary,
    )
    add_home(parser, "your device")
    parser.add_argument("text", type=Path, metavar="FILE", help="the text, - for standard input; at most 64 KiB")
    parser.add_argument("--out", type=Path, metavar="COMMITMENTS", required=True, help="where the commitment goes")
    add_passphrase_options(parser)


def _canary(options: Options) -> int:
    from blindpost.handset import open_device
    from client.volunteer import commit, commitments_file

    check_absent(options.out)
    # As a chat takes it: without the line end that an editor adds.
    text = read_bounded(options.text, str(options.text), _TEXT_BYTES_MAX).removesuffix(b"\n")
    device = open_device(options)
    try:
        commitment = commit(device, text)
        write_new(options.out, commitments_file([(commitment, device.account)]), secret=False)
    finally:
        device.close()
    print(f"{options.out}: commitment {commitment.hex()} of {device.account}")
    return 0
