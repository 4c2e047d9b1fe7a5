"""Scenarios that are shipped with the program: one TOML file each, with its sources and cautions in comments.

path = shipped("pakistan-2015")        for sim.scenario.scenario.load
"""

from pathlib import Path

from sim.scenario.base import ScenarioError

__all__ = ["names", "shipped"]

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the scenarios that are shipped, in order."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def shipped(name: str) -> Path:
    """The file of a shipped scenario.

    Raises:
        ScenarioError: there is none of that name.
    """
    if name not in names():
        raise ScenarioError("scenario", f"{name!r} is neither a file nor one of {', '.join(names())}")
    return _FOLDER / f"{name}.toml"
