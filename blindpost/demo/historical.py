"""The same story in the historical mode: one key in every handset, and one handset that gives it away."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blindpost.demo import handsets as verbs
from blindpost.demo import words
from blindpost.demo.canaries import SENTENCES_COUNT
from blindpost.demo.pipes import Process
from blindpost.demo.processes import Verdict, audit
from blindpost.demo.stage import ABSENT, PEOPLE, Stage
from wire.identity import Token

__all__ = ["PinStory"]

_GIVES_THE_KEY: Final = "bilal"
_SHOWN: Final = 5


@dataclass
class PinStory:
    """The story under the global PIN key.

    Args:
        stage: what all chapters share.
        home: the home of a second relay, the same program as the first.
        handsets: the process of the handsets.
    """

    stage: Stage
    home: Path
    handsets: Process

    async def tell(self, tokens: dict[str, Token]) -> Verdict:
        """People write, the order is served, one handset's key is given; the verifier reads everybody's messages."""
        show = self.stage.transcript
        show.chapter("The same order, as it was: one key in every handset")
        show.say(words.HISTORICAL)
        out = self.stage.out / "historical"
        out.mkdir()
        card, commitments, given = (out / name for name in ("relay-card.toml", "commitments.msgpack", "bilal.msgpack"))
        card.write_bytes((self.home / "relay-card.toml").read_bytes())
        with show.step("four handsets enrol, and write") as step:
            pairs = tuple((PEOPLE[name], token) for name, token in tokens.items())
            await self.handsets.ask("enrol", verbs.Enrolment(card.read_text(), pairs), int)
            writers = tuple(account for name, account in PEOPLE.items() if name != ABSENT)
            count = await self.handsets.ask("promise", verbs.Promise(writers, str(commitments)), int)
            await self.handsets.ask("disconnect", PEOPLE[ABSENT], str)
            receipts = 0
            for index in range(SENTENCES_COUNT):
                receipts += await self.handsets.ask("say", verbs.Say(index, (PEOPLE[ABSENT],)), int)
            step.done(f"four handsets (process {self.handsets.pid}) have sent {receipts} messages to one that is off")
        with show.step("the order is served") as step:
            taken = await self.stage.order(self.home, out / "disclosure", memory=False)
            step.done(f"the relay hands over {taken.files} files and a signed manifest")
        (out / "disclosure" / "relay-card.toml").unlink()
        give = verbs.Give(PEOPLE[_GIVES_THE_KEY], str(given))
        await self.handsets.ask("volunteer", give, int)
        show.good("Bilal alone gives the verifier what he has: the key of his handset, which sits in all of them")
        with show.step("the verifier reads everything") as step:
            found = await audit(
                out / "disclosure", card, commitments, [given], out, order=out / "disclosure" / "order.toml"
            )
            step.done(f"the verifier (process {found.pid}) has read everything")
        self._told(found, count)
        return found

    def _told(self, found: Verdict, count: int) -> None:
        show = self.stage.transcript
        failed = [check["id"] for check in found.report["checks"] if check["status"] == "FAILED"]
        read = found.report["read_messages"]
        self.stage.expect(
            found.exit_status == 1 and failed == ["historical.keys"],
            f"{found.word}: {found.check('historical.keys')['findings'][0]['text']}" if failed else found.word,
            f"{found.word}, by {', '.join(failed) or 'no check'}; it should be NOT BLIND, by historical.keys alone",
        )
        self.stage.expect(
            len(read) == count and count > 0,
            f"all {count} messages of all people are read with one key; these are some of them",
            f"{len(read)} of {count} messages were read",
        )
        for message in read[:_SHOWN]:
            show.quote(message["where"], message["text"])
        show.say(words.HISTORICAL_MORAL)
