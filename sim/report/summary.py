"""The summary of a run as a document: figures, orders, assertions, and what the run does not show."""

import json
from typing import Final

from sim.engine.outcome import Outcome
from sim.orders.captured import Captured
from sim.report.tables import time_text

__all__ = ["LIMITS", "document", "summary_json"]

LIMITS: Final = {
    "sized": (
        "bodies are random bytes of the right length, and links are sealed with a stand-in: nothing is shown about the "
        "cryptography of clients",
        "that this changes nothing at the relay is what `blindpost prove noninterference` is evidence for",
        "the audit accounts for every byte and checks the signatures of lists, prekeys and commits; there are no "
        "canaries, and nobody volunteers receipts or keys",
        "people, networks and states are models; their figures say nothing about real ones",
        "the public log is read where it is written: that others are shown the same one is not tried",
    ),
    "real": (
        "people, networks and states are models; their figures say nothing about real ones",
        "the public log is read where it is written: that others are shown the same one is not tried",
        "ciphertext differs from run to run, since ML-KEM takes no seed",
    ),
}
_SUMS: Final = (
    *("sent", "envelopes", "receipted", "delivered", "shown", "shown_twice", "refused", "withdrawn", "expired"),
    *("bytes_up", "bytes_down", "packets_lost", "commits", "aborted"),
)


def document(outcome: Outcome) -> dict[str, object]:
    """Plain values for JSON; nothing in it differs between two runs of one seed."""
    ledger = outcome.ledger
    return {
        "scenario": outcome.scenario.name,
        "seed": outcome.seed,
        "crypto": outcome.crypto,
        "protection": outcome.scenario.relay.protection,
        "begins": time_text(outcome.scenario.start.unix_s),
        "ends": time_text(outcome.scenario.end.unix_s),
        "people": outcome.people,
        "devices": outcome.devices,
        "messages": ledger.messages,
        "totals": {name: ledger.total(name) for name in _SUMS},
        "refusals": dict(sorted(ledger.refusals.items())),
        "failed": ledger.failed,
        "not written": ledger.dropped,
        "backlog at most": ledger.backlog_most,
        "receipted envelopes lost": outcome.lost,
        "receipts that did not verify": ledger.false_receipts,
        "bodies spoilt": ledger.spoilt,
        "deliveries of what nobody sent": ledger.strange,
        "device lists refused": outcome.alarms,
        "faults": dict(outcome.faults),
        "orders": [
            {
                "id": served.order.id,
                "kind": served.order.kind,
                "jurisdiction": served.order.jurisdiction,
                "answer": served.answer.value,
                "held": dict(served.held),
                "verdict": served.disclosed.verdict if served.disclosed else None,
                "contents read": served.disclosed.messages_read if served.disclosed else None,
                "checks failed": list(served.disclosed.failed) if served.disclosed else None,
                "captured": _captured(served.captured) if served.captured else None,
                "leaf": served.filed.leaf if served.filed else None,
                "answer leaf": served.filed.answer_leaf if served.filed else None,
            }
            for served in outcome.served
        ],
        "log": {
            "origin": outcome.log.origin,
            "holds": outcome.log.holds,
            "gaps": list(outcome.log.gaps),
            "readings": [
                {
                    "at": time_text(reading.at_s),
                    "after": reading.after,
                    "leaves": reading.size,
                    "root": reading.root,
                    "findings": list(reading.findings),
                }
                for reading in outcome.log.readings
            ],
        },
        "service": [
            {"from": time_text(change.at_s), "jurisdiction": change.jurisdiction, "state": change.state}
            for change in outcome.changes
        ],
        "assertions": [
            {"check": one.check, "about": one.about, "held": one.held, "found": one.found} for one in outcome.checks
        ],
        "held": outcome.held,
        "does not show": list(LIMITS[outcome.crypto]),
    }


def _captured(captured: Captured) -> dict[str, object]:
    return {
        "verdict": captured.verdict,
        "checks failed": list(captured.failed),
        "checks incomplete": list(captured.missing),
        "events": captured.events,
        "envelopes": captured.envelopes,
        "bytes": captured.body_bytes,
        "lost": captured.lost,
        "interruptions": captured.gaps,
        "bodies": captured.bodies,
        "bodies read": captured.read,
    }


def summary_json(outcome: Outcome) -> str:
    """The summary as a file's text."""
    return json.dumps(document(outcome), ensure_ascii=False, indent=2) + "\n"
