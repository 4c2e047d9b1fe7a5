"""How the command line ends: one number for each kind of ending, and which error means which.

0, 1 and 2 are the verifier's verdicts (docs/protocol.md is what it checks; 0 also means that a command did what it was
asked). The others are those of BSD's sysexits.h, so that a script or a mail system can tell 'wrong' from 'try again'.
"""

from enum import IntEnum, unique
from typing import Final

from wire.errors import BlindpostError, FormatError, SignatureError

__all__ = ["MEANINGS", "ExitStatus", "status_of"]


@unique
class ExitStatus(IntEnum):
    """The exit statuses, by name."""

    OK = 0
    NOT_BLIND = 1
    INCOMPLETE = 2
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    CRASH = 70
    CANNOT_CREATE = 73
    IO = 74
    TRY_AGAIN = 75
    ALARM = 76
    NO_PERMISSION = 77
    CONFIGURATION = 78
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitStatus.OK: "done; an audit: BLIND",
    ExitStatus.NOT_BLIND: "an audit: NOT BLIND; a demo: something did not come out; a benchmark: failed, or is worse",
    ExitStatus.INCOMPLETE: "an audit: INCOMPLETE, something is missing to decide",
    ExitStatus.USAGE: "wrong usage: an option, argument or address",
    ExitStatus.DATA: "a file or message is malformed, or a signature does not verify",
    ExitStatus.NO_INPUT: "a file that was named is not there",
    ExitStatus.UNAVAILABLE: "the relay refused, definitely, or a message failed for good",
    ExitStatus.CRASH: "a bug in this program",
    ExitStatus.CANNOT_CREATE: "an output is there already, or its folder is not",
    ExitStatus.IO: "reading or writing failed",
    ExitStatus.TRY_AGAIN: "no answer in time, or the home is in use: the same command may succeed later",
    ExitStatus.ALARM: "somebody breaks the protocol's promises: a changed key, a forged receipt, a fork",
    ExitStatus.NO_PERMISSION: "a wrong passphrase, or the system forbids it",
    ExitStatus.CONFIGURATION: "the home is not there, damaged or not enrolled",
    ExitStatus.INTERRUPTED: "interrupted from the keyboard",
}

# By the name of the class, or of a class that it is derived from: so that a command that never touches a device does
# not load the device's rooms in order to name its errors. A test looks each of them up.
_BY_NAME: Final = {
    "Alarm": ExitStatus.ALARM,
    "Refused": ExitStatus.UNAVAILABLE,
    "ServiceEnded": ExitStatus.UNAVAILABLE,
    "Expired": ExitStatus.UNAVAILABLE,
    "Incomplete": ExitStatus.UNAVAILABLE,
    "Unknown": ExitStatus.TRY_AGAIN,
    "TransportClosed": ExitStatus.TRY_AGAIN,
    "HomeInUse": ExitStatus.TRY_AGAIN,
    "StoreFailed": ExitStatus.IO,
    "WrongPassphrase": ExitStatus.NO_PERMISSION,
    "NotEnrolled": ExitStatus.CONFIGURATION,
    "HomeInvalid": ExitStatus.CONFIGURATION,
    "VaultError": ExitStatus.DATA,
    "CertificateRefused": ExitStatus.DATA,
    "HomeBusy": ExitStatus.TRY_AGAIN,
    "HomeError": ExitStatus.CONFIGURATION,
    "MemoryImageError": ExitStatus.NO_PERMISSION,
}


def status_of(error: BlindpostError | OSError) -> ExitStatus:
    """The exit status for an error that nobody handled."""
    own = getattr(error, "status", None)
    if isinstance(own, ExitStatus):
        return own
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_NAME:
            return _BY_NAME[kind.__name__]
    match error:
        case FormatError() | SignatureError():
            return ExitStatus.DATA
        case FileNotFoundError():
            return ExitStatus.NO_INPUT
        case PermissionError():
            return ExitStatus.NO_PERMISSION
        case FileExistsError():
            return ExitStatus.CANNOT_CREATE
        case OSError():
            return ExitStatus.IO
        case _:
            return ExitStatus.UNAVAILABLE
