"""The command line's own errors: what went wrong, and on a line of its own what to do about it (after age)."""

from blindpost.exit_status import ExitStatus
from wire.errors import BlindpostError

__all__ = ["CommandError", "UsageError"]


class CommandError(BlindpostError):
    """A command cannot do what it was asked.

    Args:
        problem: what is wrong: lower case, no period, never a secret.
        hint: what to do, or nothing.
        status: how the program ends.
    """

    def __init__(self, problem: str, hint: str = "", status: ExitStatus = ExitStatus.UNAVAILABLE) -> None:
        self.problem = problem
        self.hint = hint
        self.status = status
        super().__init__(problem)


class UsageError(CommandError):
    """The command line itself is wrong."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint, ExitStatus.USAGE)
