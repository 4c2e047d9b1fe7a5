"""The chapters of the blind relay: people, promises, mail, the order, the verdict, the controls."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from blindpost.demo import devices as verbs
from blindpost.demo import words
from blindpost.demo.letters import Letter, contract_signature
from blindpost.demo.pipes import Process
from blindpost.demo.processes import RelayProcess, Verdict, audit, since_boot
from blindpost.demo.stage import ABSENT, PEOPLE, Stage, clock, size
from client.content import Kind
from relay.control import Connection, Status, StatusRequest
from relay.home import Home
from wire.codec import decode
from wire.hashing import label
from wire.identity import Token

__all__ = ["BlindStory"]

_NAMES: Final = {account: name for name, account in PEOPLE.items()}
_TABLET: Final = "bilal-tablet"
_WRITERS: Final = ("ana", "bilal", "dawud")
_CANARIES: Final = 8
_QUOTED: Final = 3
_LOOK_S: Final = 0.1
_LOOKS_ALIKE: Final = 4
_LOOKS_MAX: Final = 50


@dataclass
class BlindStory:
    """The story with the blind relay, chapter by chapter, in this order.

    Args:
        stage: what all chapters share.
        home: the relay's home.
        relay: its process.
        devices: the process of the devices.
        letters: the mail.
    """

    stage: Stage
    home: Path
    relay: RelayProcess
    devices: Process
    letters: list[Letter]
    sent_to_absent: list[Letter] = field(default_factory=list)
    envelopes: int = 0
    cheats: list[dict[str, Any]] = field(default_factory=list)
    _contracts: list[bytes] = field(default_factory=list)

    @property
    def _card(self) -> Path:
        return self.stage.out / "relay-card.toml"

    @property
    def _commitments(self) -> Path:
        return self.stage.out / "commitments.msgpack"

    @property
    def _controls(self) -> Path:
        return self.stage.out / "controls.jsonl"

    @property
    def disclosure(self) -> Path:
        """Where the relay hands everything over."""
        return self.stage.out / "disclosure"

    # ---- chapter: the people

    async def people(self, tokens: dict[str, Token]) -> None:
        """Enrol five devices of four people in two companies, and compare safety numbers."""
        show = self.stage.transcript
        show.chapter("Two companies, four people, five devices")
        self._card.write_bytes((self.home / "relay-card.toml").read_bytes())
        folder = self.stage.work / "devices"
        folder.mkdir(mode=0o700)
        with show.step("the devices make their keys and enrol") as step:
            enrolment = verbs.Enrolment(self._card.read_text(), str(folder), tuple(tokens.items()))
            accounts = await self.devices.ask("enrol", enrolment, list[str])
            step.done(f"{', '.join(accounts)}: all with keys made on their devices (process {self.devices.pid})")
        with show.step("Bilal takes a second device") as step:
            digits = await self.devices.ask("second", verbs.Second(_TABLET, "bilal"), str)
            step.done(f"Bilal's tablet, certified by his handheld; no private key travelled ({digits})")
        mine = await self.devices.ask("safety_number", verbs.Number("ana", PEOPLE["chloe"]), str)
        hers = await self.devices.ask("safety_number", verbs.Number("chloe", PEOPLE["ana"]), str)
        self.stage.expect(mine == hers, "Ana and Chloe read each other the same safety number on the telephone")
        show.fact(mine)

    # ---- chapter: the promises

    async def promises(self) -> None:
        """Draw canaries, and hand the verifier hashes of them before the first message."""
        show = self.stage.transcript
        show.chapter("A promise to the verifier")
        show.say(words.PROMISE)
        drawn_at = time.time()
        promise = verbs.Promise(_WRITERS, str(self._commitments))
        names = await self.devices.ask("promise", promise, list[str])
        show.good(f"{len(names)} commitments handed over at {clock(drawn_at)} UTC: {self._commitments.name}")
        self.stage.expect(
            self.relay.started < drawn_at and since_boot(self.relay.pid) < drawn_at,
            f"the relay was started {drawn_at - self.relay.started:.1f} s before: its program cannot know them",
        )

    # ---- chapter: the messages

    async def messages(self) -> None:
        """Mail and chat while all are there; then Chloe's handheld is off, and what is for her waits."""
        show = self.stage.transcript
        show.chapter("What people write")
        later = [letter for letter in self.letters if self._waits(letter)]
        first = [letter for letter in self.letters if not self._waits(letter)]
        await self._chat()
        await self._mail(first)
        self._check_signatures()
        await self.devices.ask("switch_off", ABSENT, str)
        show.say(words.OFFLINE)
        self.sent_to_absent = later
        await self._mail(later)
        with show.step("the canaries are sent") as step:
            receipts = 0
            for number in range(1, _CANARIES + 1):
                writer = _WRITERS[(number - 1) % len(_WRITERS)]
                others = (PEOPLE["bilal" if writer == "ana" else "ana"],) if number % 2 else ()
                chat = verbs.Chat(writer, (PEOPLE[ABSENT], *others), canary=number, as_mail=number == 1)
                receipts += (await self.devices.ask("chat", chat, verbs.Sent)).receipts
            self.envelopes += receipts
            await self._settled()
            step.done(f"{_CANARIES} canaries sent to Chloe, some to others as well: {receipts} receipts of the relay")

    def _waits(self, letter: Letter) -> bool:
        return PEOPLE[ABSENT] in letter.recipients and letter.sender != PEOPLE[ABSENT]

    async def _chat(self) -> None:
        show, ask = self.stage.transcript, self.devices.ask
        with show.step("chat") as step:
            text = "Are the looms on the ship? گاڑی نکل گئی؟"
            asked = await ask("chat", verbs.Chat("ana", (PEOPLE["bilal"], PEOPLE["dawud"]), text), verbs.Sent)
            arrived = await self._collected("bilal", 1)
            await self._collected(_TABLET, 1)
            await self._collected("dawud", 1)
            reply = verbs.Chat("bilal", (PEOPLE["ana"],), "Forty of forty, and a cat.", asked.message_id)
            answered = await ask("chat", reply, verbs.Sent)
            pinged = await ask("chat", verbs.Chat("dawud", (PEOPLE["bilal"],)), verbs.Sent)
            back = await self._collected("ana", 1)
            await self._collected("bilal", 1)
            # The tablet gets the PING, and a copy of what its owner wrote on the other device.
            copies = await self._collected(_TABLET, 2)
            for name in ("bilal", "dawud"):
                await ask("read", name, int)
            marks = await ask("marks", verbs.Wait("ana", asked.message_id, 2, 2), verbs.Marks)
            self.envelopes += asked.receipts + answered.receipts + pinged.receipts
            step.done("a chat with a reply, a PING, D and R marks, on two devices of one person")
        show.quote("ana", arrived[0].payload.decode())
        show.quote("bilal", back[0].payload.decode())
        self.stage.expect(
            back[0].reply_to == asked.message_id and any(copy.own_copy for copy in copies),
            "Bilal's answer names the question, and his tablet has a copy of it",
        )
        self.stage.expect(
            set(marks.delivered_to) == set(marks.read_by) == {PEOPLE["bilal"], PEOPLE["dawud"]},
            "Ana sees D and R beside her message, of Bilal and of Dawud",
        )

    async def _mail(self, letters: list[Letter]) -> None:
        """Send letters; check on every device that is there that the very bytes arrived."""
        if not letters:
            return
        show = self.stage.transcript
        expected: dict[str, list[Letter]] = {}
        with show.step("mail is sent") as step:
            receipts = 0
            for letter in letters:
                mail = verbs.Mail(_NAMES[letter.sender], letter.raw, letter.to, letter.cc, letter.bcc)
                receipts += (await self.devices.ask("mail", mail, verbs.Sent)).receipts
                for name in self._reached(letter):
                    expected.setdefault(name, []).append(letter)
            self.envelopes += receipts
            names = ", ".join(letter.name for letter in letters[:10]) + (" …" if len(letters) > 10 else "")
            total = size(sum(len(letter.raw) for letter in letters))
            step.done(f"{len(letters)} mails, {total}: {names}; {receipts:,} receipts of the relay")
        same = count = 0
        with show.step("mail arrives") as step:
            for name, expected_here in expected.items():
                arrived = await self._collected(name, len(expected_here))
                payloads = [message.payload for message in arrived if message.kind == Kind.EMAIL]
                count += len(expected_here)
                same += sum(any(letter.same_bytes(payload) for payload in payloads) for letter in expected_here)
                self._contracts += [p for p in payloads if any(_is_contract(mail, p) for mail in expected_here)]
            step.done(f"{count} mails have arrived on {len(expected)} devices")
        blind = [letter for letter in letters if letter.has_bcc]
        but = f"; {len(blind)} of them without the Bcc field that the file has" if blind else ""
        self.stage.expect(
            same == count, f"all {count} arrived byte for byte{but}", f"only {same} of {count} are the same"
        )

    def _reached(self, letter: Letter) -> list[str]:
        """The devices that get a letter now: recipients' that are on, and the sender's other ones."""
        names = [_NAMES[account] for account in dict.fromkeys(letter.recipients)]
        reached = [name for name in names if not (name == ABSENT and self._waits(letter))]
        if "bilal" in names or _NAMES[letter.sender] == "bilal":
            reached.append(_TABLET)
        return reached

    def _check_signatures(self) -> None:
        """The sample contract is signed: S/MIME breaks with one changed byte."""
        signers = {contract_signature(payload) for payload in self._contracts}
        if signers:
            text = f"the S/MIME signature on the contract, by {', '.join(sorted(signers))}, verifies on arrival"
            self.stage.expect(signers == {PEOPLE["ana"]}, f"{text}, {len(self._contracts)} times")

    async def _settled(self) -> None:
        """Wait until what is under way has arrived: what the relay still holds then waits for Chloe."""
        held: list[int] = []
        while len(held) < _LOOKS_MAX and (len(held) < _LOOKS_ALIKE or len(set(held[-_LOOKS_ALIKE:])) > 1):
            held.append(await asyncio.to_thread(_envelopes_held, self.home))
            await asyncio.sleep(_LOOK_S)

    async def _collected(self, name: str, count: int) -> list[verbs.Arrived]:
        return await self.devices.ask("collect", verbs.Collect(name, count), list[verbs.Arrived])

    # ---- chapter: the order

    async def order(self) -> None:
        """Serve the wholesale order, with the memory image."""
        show = self.stage.transcript
        show.chapter("The order")
        for paragraph in (words.ORDER_PAKISTAN, words.ORDER_ELSEWHERE, words.ORDER_NOW):
            show.say(paragraph)
        with show.step("the relay is stopped for a moment and its memory copied from outside") as step:
            taken = await self.stage.order(self.home, self.disclosure, memory=True)
            image = taken.memory
            assert image is not None
            step.done(
                f"{taken.files} files and a signed manifest; the relay has changed its signing key, which was seen"
            )
        more = f"{image.unreadable} more cannot be read, guard pages and the kernel's own"
        show.fact(f"its memory: {size(image.image_bytes)} in {image.ranges} ranges; {more}")
        # The orderer's own copy of the card lies beside the disclosure; the verifier gets the one from before.
        (self.disclosure / "relay-card.toml").unlink()
        self.stage.file_table(self.disclosure)
        log = (self.disclosure / "log" / "relay.log").read_text(encoding="ascii").splitlines()
        show.say(f"Its log has {len(log)} lines, and these are the last of them:")
        for line in log[-3:]:
            show.fact(line)

    # ---- chapter: the verdict

    async def verdict(self, results: "asyncio.Queue[dict[str, Any] | None]") -> Verdict:
        """Let people volunteer, audit, open the commitments, and let Chloe come back and read."""
        show = self.stage.transcript
        show.chapter("The verdict")
        folder = self.stage.out / "volunteered"
        folder.mkdir()
        given: Counter[str] = Counter()
        with show.step("people give the verifier what they choose to give") as step:
            for name in (*PEOPLE, _TABLET):
                disclosure = str(self.disclosure) if name == ABSENT else ""
                volunteer = verbs.Volunteer(name, str(folder / f"{name}.msgpack"), disclosure)
                given.update(await self.devices.ask("volunteer", volunteer, dict[str, int]))
            step.done("people give the verifier " + ", ".join(f"{count} {kind}" for kind, count in given.items()))
        show.fact(words.SECRETS)
        files = sorted(folder.iterdir())
        await self.tried(results)
        with show.step("the verifier reads everything") as step:
            found = await audit(
                self.disclosure,
                self._card,
                self._commitments,
                files,
                self.stage.out,
                self._controls,
                self.disclosure / "order.toml",
            )
            step.done(f"the verifier (process {found.pid}) has read everything")
        marks = {"passed": "✓", "FAILED": "✗", "missing": "?", "not run": "-"}
        rows = [(marks[check["status"]], check["id"], check["evidence"]) for check in found.report["checks"]]
        show.table(("", "check", "evidence"), rows)
        show.blank()
        self.stage.expect(found.exit_status == 0, f"{found.word}: {found.report['headline']}")
        self._tell_failures(found)
        show.fact("the report has the cheats that the verifier was tried on; chapter 7 tells them")
        openings = found.check("evidence.openings")["figures"]
        self.stage.expect(
            openings.get("keys", 0) > 0
            and openings.get("rows opened") == openings.get("keys")
            and openings.get("canaries in opened rows") == openings.get("canaries") == _CANARIES,
            f"Chloe's {openings.get('keys')} message keys open {openings.get('rows opened')} rows of this disclosure, "
            f"and all {openings.get('canaries')} canaries are in them: the content was there, "
            "and nothing that was handed over opens it",
        )
        await self._chloe_reads(files)
        return found

    def _tell_failures(self, found: Verdict) -> None:
        for check in found.report["checks"]:
            for finding in check["findings"][:3]:
                self.stage.transcript.bad(f"{check['id']}: {finding['where']}: {finding['text']}")
            for missing in check["missing"][:3]:
                self.stage.transcript.bad(f"{check['id']} misses {missing}")

    async def _chloe_reads(self, files: list[Path]) -> None:
        """She comes back after the disclosure, and reads what was opened for the verifier, and her mail."""
        show = self.stage.transcript
        await self.devices.ask("switch_on", ABSENT, str)
        texts = _opened_texts(files, self._commitments)
        arrived = await self._collected(ABSENT, len(self.sent_to_absent) + len(texts))
        payloads = [message.payload for message in arrived]
        read = [text for text in texts if any(text in payload for payload in payloads)]
        self.stage.expect(
            len(texts) == _CANARIES and len(read) == len(texts),
            f"Chloe is back, and reads those very texts, all {len(read)} of them",
            f"Chloe reads {len(read)} of the {len(texts)} texts",
        )
        for message in [message for message in arrived if message.kind == Kind.CHAT][:_QUOTED]:
            show.quote(_NAMES[message.account], message.payload.decode())
        same = sum(any(letter.same_bytes(payload) for payload in payloads) for letter in self.sent_to_absent)
        if self.sent_to_absent:
            count = len(self.sent_to_absent)
            self.stage.expect(
                same == count, f"and her {same} mails, byte for byte", f"{same} of her {count} mails are the same"
            )

    # ---- chapter: the controls

    async def tried(self, results: "asyncio.Queue[dict[str, Any] | None]") -> None:
        """Wait for what came of the cheats that run beside the story: the verdict is told with them."""
        with self.stage.transcript.step("the verifier is tried on cheats") as step:
            while (result := await results.get()) is not None:
                self.cheats.append(result)
            step.done(f"beside this story, the verifier was tried on {len(self.cheats)} relays and clients that cheat")
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in self.cheats)
        self._controls.write_text(lines, encoding="utf-8")

    def controls(self) -> tuple[int, int]:
        """Tell what came of the cheats; returns how many there were, and how many were caught."""
        show = self.stage.transcript
        show.chapter("Would it have noticed?")
        show.say(words.CONTROLS)
        told = self.cheats
        rows = [("✓" if one["caught"] else "✗", one["name"], one["expected"], one["proof"]) for one in told]
        show.table(("", "cheat", "caught by", "the leak, as found without the verifier"), rows)
        caught = sum(one["caught"] for one in told)
        for one in told:
            if not one["caught"]:
                show.bad(f"{one['name']}: {one['problem'] or one['caught_by']}")
        self.stage.expect(told and caught == len(told), f"{len(told)} mutants, {caught} caught")
        return len(told), caught


def _is_contract(letter: Letter, payload: bytes) -> bool:
    return letter.name == "contract" and letter.same_bytes(payload)


def _envelopes_held(home: Path) -> int:
    """How many envelopes the relay holds, as it tells its operator."""
    with Connection(Home.open(home).socket_path) as connection:
        status = connection.request(StatusRequest())
    assert isinstance(status, Status)
    return dict(status.counts)["envelopes_held"]


def _opened_texts(files: list[Path], commitments: Path) -> list[bytes]:
    """The texts of the volunteered openings that a commitment from before the first message fits."""
    _, items = decode(tuple[str, list[Any]], commitments.read_bytes(), "commitments")
    promised = {commitment for commitment, _ in items}
    texts = []
    for path in files:
        _, _, given = decode(tuple[str, str, list[Any]], path.read_bytes(), path.name)
        for item in given:
            if item[0] == 4 and sha256(label("canary") + item[1] + item[2]).digest() in promised:
                texts.append(item[2])
    return texts
