"""A failing scenario made smaller: delta debugging over its parts, until nothing more can go or the time is over.

    small = shrunk(tree, still_fails, until)

Parts are faults and their moments, orders and what happens to them, companies, people, contacts, messages, hours, and
each condition of the network. Fewer of them first, large steps before small ones (Zeller and Hildebrandt, ddmin);
whatever makes the failure go away is put back. The seed stays, but a smaller scenario draws otherwise: each step is a
run that fails by itself.
"""

import copy
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from sim.scenario.base import ScenarioError
from sim.swarm.generate import Tree

__all__ = ["candidates", "shrunk", "size_of"]

_HOUR_DAYS: Final = 1 / 24
_DULL: Final = (
    ("network", "loss", 0.0),
    ("network", "duplication", 0.0),
    ("network", "reorder", 0.0),
    ("network", "delay_spread_ms", 0),
    ("network", "delay_ms", 1),
    ("people", "offline_share", 0.0),
    ("people", "abrupt_share", 0.0),
    ("traffic", "reply_share", 0.0),
    ("traffic", "mail_recipients", 1.0),
    ("traffic", "mails_per_day", 0.0),
    ("relay", "store", "memory"),
    ("relay", "mailbox_bytes_max", 256 * 1024 * 1024),
    ("relay", "mailbox_envelopes_max", 10_000),
    ("relay", "retention_days", 30),
)
"""What is nothing special."""
_ORDER_MOMENTS: Final = ("date", "withdrawn", "opened")


def size_of(tree: Tree) -> dict[str, int]:
    """How large a scenario is: people, messages at most, moments of faults and orders, minutes."""
    return {
        "people": sum(tenant["people"] for tenant in tree["tenant"]),
        "messages": tree["traffic"]["messages_max"],
        "faults": sum(len(fault["at"]) for fault in tree["fault"]) + len(tree.get("order", ())),
        "minutes": round(tree["days"] * 24 * 60),
    }


def shrunk(tree: Tree, still_fails: Callable[[Tree], bool], has_time: Callable[[], bool]) -> tuple[Tree, int]:
    """Make a failing scenario smaller.

    Args:
        tree: it fails.
        still_fails: runs another one.
        has_time: asked before each run.

    Returns:
        the smallest that was found, and how many runs it took.
    """
    runs = 0
    progress = True
    while progress:
        progress = False
        for smaller in candidates(tree):
            if not has_time():
                return tree, runs
            runs += 1
            try:
                fails = still_fails(smaller)
            except ScenarioError:
                # A part that another one needed.
                continue
            if fails:
                tree, progress = smaller, True
                break
    return tree, runs


def candidates(tree: Tree) -> Iterator[Tree]:
    """Scenarios with something less, the largest steps first."""
    yield from _without(tree, "order")
    yield from _plainer_orders(tree)
    yield from _without(tree, "fault")
    yield from _fewer_moments(tree)
    yield from _without(tree, "tenant", keep=1)
    for most in _towards(tree["traffic"]["messages_max"], 1):
        yield _with(tree, ("traffic", "messages_max"), most)
    for number, tenant in enumerate(tree["tenant"]):
        for people in _towards(tenant["people"], 1):
            yield _with(tree, ("tenant", number, "people"), people)
        if tenant["devices_per_person"] > 1.0:
            yield _with(tree, ("tenant", number, "devices_per_person"), 1.0)
    yield from _shorter(tree)
    for table, key, dull in _DULL:
        if tree[table][key] != dull:
            yield _with(tree, (table, key), dull)
    for contacts in _towards(tree["people"]["contacts"], 1):
        yield _with(tree, ("people", "contacts"), contacts)


def _towards(value: int, least: int) -> list[int]:
    """Half of the way, a quarter, one less."""
    steps = {least, (value + least) // 2, value - (value - least) // 4, value - 1}
    return sorted(step for step in steps if least <= step < value)


def _with(tree: Tree, path: tuple[str | int, ...], value: Any) -> Tree:
    changed = copy.deepcopy(tree)
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return changed


def _without(tree: Tree, name: str, keep: int = 0) -> Iterator[Tree]:
    parts = tree.get(name, [])
    if len(parts) > 1 and not keep:
        yield _with(tree, (name,), [])
        yield _with(tree, (name,), parts[: len(parts) // 2])
        yield _with(tree, (name,), parts[len(parts) // 2 :])
    for number in range(len(parts)):
        if len(parts) > keep:
            yield _with(tree, (name,), parts[:number] + parts[number + 1 :])


def _plainer_orders(tree: Tree) -> Iterator[Tree]:
    """Without what happened to an order after it was served; what a later step needs goes with it."""
    for number, order in enumerate(tree.get("order", ())):
        for names in (("extension",), ("opened", "sealed"), ("withdrawn", "deadline", "extension")):
            # A block that is never lifted would be another scenario.
            if names[0] in order and order["kind"] != "block":
                yield _with(
                    tree, ("order", number), {name: value for name, value in order.items() if name not in names}
                )


def _fewer_moments(tree: Tree) -> Iterator[Tree]:
    for number, fault in enumerate(tree["fault"]):
        moments = fault["at"]
        if len(moments) > 1:
            for index in range(len(moments)):
                yield _with(tree, ("fault", number, "at"), moments[:index] + moments[index + 1 :])


def _shorter(tree: Tree) -> Iterator[Tree]:
    """Half as long, with rates that give as many messages; only if everything that is dated still fits."""
    days = tree["days"] / 2
    if days < _HOUR_DAYS / 8:
        return
    end: datetime = tree["start"] + timedelta(days=days) - timedelta(seconds=1)
    dated = [moment for fault in tree["fault"] for moment in fault["at"]]
    dated += [moment for order in tree.get("order", ()) for moment in _moments_of(order)]
    if any(moment > end for moment in dated):
        # What happens later happens earlier: in proportion.
        tree = _squeezed(tree)
    changed = _with(tree, ("days",), days)
    for rate in ("chats_per_day", "mails_per_day"):
        changed["traffic"][rate] = min(10_000.0, changed["traffic"][rate] * 2)
    yield changed


def _squeezed(tree: Tree) -> Tree:
    start: datetime = tree["start"]

    def nearer(moment: datetime) -> datetime:
        return start + timedelta(seconds=(moment - start).total_seconds() // 2)

    changed = copy.deepcopy(tree)
    for fault in changed["fault"]:
        fault["at"] = [nearer(moment) for moment in fault["at"]]
    for order in changed.get("order", ()):
        order |= {name: nearer(order[name]) for name in _ORDER_MOMENTS if name in order}
        for extension in order.get("extension", ()):
            extension["on"] = nearer(extension["on"])
    return changed


def _moments_of(order: Tree) -> list[datetime]:
    """When something happens to an order; a deadline is a date in its text."""
    stated = [order[name] for name in _ORDER_MOMENTS if name in order]
    return stated + [extension["on"] for extension in order.get("extension", ())]
