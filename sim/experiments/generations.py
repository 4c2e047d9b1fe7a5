"""Five relays, one order: what the same disclosure of the same mail shows, from the global PIN key to this protocol.

    run = run_generations(Path(folder))
    run.result, run.told           the experiment, and for each relay what the verifier read of it

Each relay is this project's own and honest; what differs is how devices protect their mail and what the server keeps
beside it (sim/generations/). Each is asked two things: what the verifier reads in the disclosure, and which texts that
were delivered and acknowledged long before open in recorded ciphertext for whoever seizes one device.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audit import Report
from sim.experiments.recorded import Recorded
from sim.experiments.result import Control, Figure, Result
from sim.experiments.seizure import Adversary
from sim.generations import worlds
from sim.generations.protections import (
    DeviceKeyProtection,
    HostedProtection,
    ServerKeyProtection,
    device_private,
    unseal,
)
from sim.generations.worlds import SEIZED, Written, serve, volunteered
from sim.handset import PinProtection
from sim.historical import GLOBAL_PIN_KEY, PIN_SUITE, PinMessage, read_message
from wire.errors import BlindpostError

__all__ = ["GENERATIONS", "Generation", "GenerationsRun", "Told", "run_generations"]


@dataclass(frozen=True)
class Generation:
    """One way to protect mail.

    Attributes:
        name: for tables.
        title: for people.
        keys_are: where the keys are.
        case: what became of it in the world, with its date.
        sources: where that is told.
    """

    name: str
    title: str
    keys_are: str
    case: str
    sources: str


GENERATIONS: Final = (
    Generation(
        "global-pin-key",
        "The global PIN key",
        "one, in every handset",
        "PIN messages and BBM: 'scrambled, but not encrypted'. The RCMP read over a million of them with 'the correct "
        "global key', 2010 to 2012.",
        "support.blackberry.com 000010498; motherboard.vice.com mg77vv (2016-04-14)",
    ),
    Generation(
        "hosted-bes",
        "A hosted BES",
        "one for each device, in the server's database",
        "BES kept the transport keys in its configuration database. At the customer's that was the point of it; hosted "
        "by somebody else, it answers an order in full.",
        "RIM, BES 5 security technical overview; docs.blackberry.com/en/admin/deliverables/12873",
    ),
    Generation(
        "server-mail-keys",
        "Mail keys that the server makes",
        "one for each person, made and kept by the server",
        "Ennetcom: servers in Toronto, seized on 19 April 2016; 3.6 million messages were read, because the keys were "
        "found there.",
        "2016 ONSC 5699; nltimes.nl (2017-03-09)",
    ),
    Generation(
        "device-keys",
        "Device keys without a ratchet",
        "one on each device, for good",
        "BBM Protected (16 June 2014) made keys on the device. Without a step that forgets, a seized device opens what "
        "was recorded before.",
        "BlackBerry, BBM Protected security note (2014-09); techweez.com (2014-06-17)",
    ),
    Generation(
        "blindpost",
        "Blindpost",
        "one for each message, on the devices, and then nowhere",
        "Signal's Double Ratchet and PQXDH, as this project's protocol has them.",
        "docs/protocol.md sections 4.1 and 4.2",
    ),
)


@dataclass(frozen=True)
class Told:
    """What came of one relay.

    Attributes:
        generation: which.
        waiting: texts that waited at the relay when the order came.
        read: of those, what the verifier read in the disclosure.
        quoted: some of them, word for word.
        past: texts that a device had read and acknowledged before it was seized.
        past_opened: of those, opened in recorded ciphertext with that device.
        verdict: the verifier's.
        failed: checks that failed.
    """

    generation: Generation
    waiting: int
    read: int
    quoted: tuple[str, ...]
    past: int
    past_opened: int
    verdict: str
    failed: tuple[str, ...]


@dataclass(frozen=True)
class GenerationsRun:
    """All five."""

    told: tuple[Told, ...]

    @property
    def result(self) -> Result:
        """The experiment's result: the fifth is the statement, the others are its twins."""
        *twins, ours = self.told
        hosted = twins[:3]
        return Result(
            experiment="generations",
            claim="C1, C3",
            statement=(
                "Of five relays that are served one order over the same mail, the verifier reads the first three "
                "aloud, a seized device opens the past of the first four, and of the fifth nothing is read."
            ),
            held=not ours.read and not ours.past_opened and ours.verdict == "BLIND",
            parameters={"waiting texts": ours.waiting, "texts read before": ours.past},
            figures=tuple(
                figure
                for told in self.told
                for figure in (
                    Figure(f"{told.generation.name}: read in the disclosure", told.read, f"of {told.waiting} texts"),
                    Figure(f"{told.generation.name}: past opened", told.past_opened, f"of {told.past} texts"),
                )
            ),
            controls=(
                *(
                    Control(
                        told.generation.name,
                        f"keys: {told.generation.keys_are}",
                        caught=told.read == told.waiting > 0 and told.past_opened == told.past > 0,
                        how=f"{told.read} of {told.waiting} texts read, {told.past_opened} of {told.past} of the past",
                    )
                    for told in hosted
                ),
                Control(
                    twins[3].generation.name,
                    f"keys: {twins[3].generation.keys_are}",
                    caught=not twins[3].read and twins[3].past_opened == twins[3].past > 0,
                    how=f"nothing read in the disclosure, {twins[3].past_opened} of {twins[3].past} texts of the past",
                ),
            ),
            limits=(
                "the first four are models of where keys were, on this project's relay; their ciphers are stand-ins "
                "where the real ones do not matter to the question",
                "what each of the five relays sees of metadata is the same",
            ),
            evidence=tuple(f"blindpost: {text!r} was read" for text in ours.quoted),
        )


def run_generations(folder: Path, progress: Callable[[str, int, int], None] | None = None) -> GenerationsRun:
    """Let the same people write under each, serve the order, audit, and seize one device.

    Args:
        folder: an empty one.
        progress: called with the title of each part, its position and the count.
    """
    told = []
    steps = (_pin, _hosted, _server_keys, _device_keys, _blindpost)
    for at, (generation, step) in enumerate(zip(GENERATIONS, steps, strict=True)):
        if progress is not None:
            progress(generation.title, at, len(steps))
        told.append(step(folder / generation.name, generation))
    if progress is not None:
        progress("done", len(steps), len(steps))
    return GenerationsRun(tuple(told))


# ---- each of the five


def _pin(folder: Path, generation: Generation) -> Told:
    written = asyncio.run(worlds.historical(folder, PinProtection()))
    served = serve(written, folder / "disclosure")
    served.volunteered = volunteered(written.evidence, [5, PIN_SUITE, GLOBAL_PIN_KEY])
    return _told(generation, written, served.audit(), _opened(written, read_message))


def _hosted(folder: Path, generation: Generation) -> Told:
    protection = HostedProtection(os.urandom)
    written = asyncio.run(worlds.historical(folder, protection))
    served = serve(written, folder / "disclosure", protection.database)
    seized = protection.database[written.handsets[SEIZED].device.mailbox]
    return _told(generation, written, served.audit(), _opened(written, lambda body: read_message(body, seized)))


def _server_keys(folder: Path, generation: Generation) -> Told:
    protection = ServerKeyProtection()
    written = asyncio.run(worlds.historical(folder, protection))
    private = {mailbox: pair[0] for mailbox, pair in protection.database.items()}
    served = serve(written, folder / "disclosure", private)
    seized = private[written.handsets[SEIZED].device.mailbox]
    return _told(generation, written, served.audit(), _opened(written, lambda body: unseal(body, seized)))


def _device_keys(folder: Path, generation: Generation) -> Told:
    written = asyncio.run(worlds.historical(folder, DeviceKeyProtection()))
    report = serve(written, folder / "disclosure").audit()
    seized = device_private(written.handsets[SEIZED].device)
    return _told(generation, written, report, _opened(written, lambda body: unseal(body, seized)))


def _blindpost(folder: Path, generation: Generation) -> Told:
    written, seized = asyncio.run(worlds.blindpost(folder))
    report = serve(written, folder / "disclosure").audit()
    bodies = [recorded for account, recorded in written.recorded if account == SEIZED]
    opened = Adversary(seized, {recorded.mailbox for recorded in bodies}).attack(bodies)
    return _told(generation, written, report, len(opened))


def _opened(written: Written, read: Callable[[bytes], PinMessage]) -> int:
    """How many of the texts that the seized device had read open in what was recorded, with its key."""
    found: set[bytes] = set()
    for recorded in _to_seized(written):
        try:
            found.add(read(recorded.body).payload)
        except BlindpostError:
            continue
    return len(found & set(written.read_before))


def _to_seized(written: Written) -> list[Recorded]:
    return [recorded for account, recorded in written.recorded if account == SEIZED]


def _told(generation: Generation, written: Written, report: Report, past_opened: int) -> Told:
    texts = [canary.text for canary in written.evidence.canaries]
    shown = [message.text for message in report.read_messages]
    read = [text for text in texts if any(text in words for words in shown)]
    return Told(
        generation,
        waiting=len(texts),
        read=len(read),
        quoted=tuple(read),
        past=len(written.read_before),
        past_opened=past_opened,
        verdict=report.verdict.value,
        failed=report.failed,
    )
