"""A scenario's tree as TOML text: the standard library reads TOML and writes none.

Only what scenarios consist of: numbers, booleans, texts, moments, lists, tables, tables in lists. What is written is
read back by `sim.scenario.scenario.from_toml`, so that a mistake here cannot pass for a scenario.
"""

import json
from datetime import date, datetime
from typing import Any

from sim.swarm.generate import Tree

__all__ = ["to_toml"]


def to_toml(tree: Tree, comment: str = "") -> str:
    """Write a tree; `comment` stands on top, line by line."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += _table(tree, "")
    return "\n".join(lines).strip() + "\n"


def _table(tree: Tree, path: str) -> list[str]:
    plain = [f"{key} = {_value(value)}" for key, value in tree.items() if not _is_nested(value)]
    lines = plain
    for key, value in tree.items():
        name = f"{path}{key}"
        if isinstance(value, dict) and not path:
            lines += ["", f"[{name}]", *_table(value, f"{name}.")]
        elif _is_nested(value) and isinstance(value, list):
            for part in value:
                lines += ["", f"[[{name}]]", *_table(part, f"{name}.")]
        elif _is_nested(value):
            lines.append(f"{key} = {_value(value)}")
    return lines


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # A JSON text of one line is a TOML basic string.
            return json.dumps(value, ensure_ascii=False)
        case datetime() | date():
            return value.isoformat().replace("+00:00", "Z")
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case dict():
            return "{ " + ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items()) + " }"
        case _:
            raise TypeError(f"{type(value).__name__} is not part of a scenario")
