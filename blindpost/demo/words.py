"""The teller's words. Facts are those of the record: who ordered what, of whom, and who says so."""

from typing import Final

INTRO: Final = """
    In 2015, by BlackBerry's account, a government wanted every enterprise mail and every message that went through its
    servers, and the company answered that it could not provide them. This program lets you check such a sentence
    instead of believing it: people write to one another through a relay, the relay is ordered to hand over everything,
    hands over everything, its own memory included, and a verifier that shares no code with it looks for anything that
    can be read.
"""

PROMISE: Final = """
    The devices draw texts that nobody has ever written: canaries. The verifier gets hashes of them now, before the
    first message, so that nobody can choose later which texts were meant.
"""

OFFLINE: Final = "Chloe boards a ship; her handheld is off. From here on, what is for her waits at the relay."

ORDER_PAKISTAN: Final = """
    In July 2015 Pakistan's regulator told three mobile carriers to close every BES connection by the end of November.
    What was wanted of the company itself, it told on 30 November, by its own account: "every BES e-mail and every BES
    BBM message". It said that it would rather leave the country. It stayed when the order was rescinded on 31 December;
    the authorities, it wrote, accepted that it could not provide the content of its customers' BES traffic.
"""

ORDER_ELSEWHERE: Final = """
    That is one side. Between 2010 and 2013 the same company opened its consumer messenger to lawful requests, and what
    went under one key for all handsets was read by the million (chapter 8). And keys on a server are keys in reach:
    Ennetcom's mail servers stood in Toronto, and in 2017 the Dutch police had read 3.6 million messages from them.
    Where the keys are decides it, not where the machine is.
"""

ORDER_NOW: Final = "So this relay is served that order, and hands over everything that it has."

SECRETS: Final = "the private keys of all five devices are among it: to be searched for in what the relay handed over"

CONTROLS: Final = """
    A verifier that always says BLIND would have said so too. So beside this story relays and clients that cheat were
    run, each in one way: the leak is really in what they hand over, and the same verifier must find it, by the check
    meant for it, and must pass the honest twin.
"""

HISTORICAL: Final = """
    Now the same story as it was for PIN messages and for BBM: one Triple DES key, put into every handset when it was
    made. "Consider PIN messages as scrambled, but not encrypted", said the company. The RCMP read over a million of
    them between 2010 and 2012 with "the correct global key". Relay, links, receipts and the order are the same as
    before; only the key is in another place.
"""

HISTORICAL_MORAL: Final = """
    The relay was as blind as before: it had no key, and every other check of the verifier found nothing. One person who
    had a handset was enough, and everybody's messages lay open. That is why the checks above ask where keys are.
"""

SEEN: Final = """
    Blind does not mean that nothing is seen. This is what the relay of the first story knew, in numbers, and what an
    order does get. Every column of its database is in the report.
"""

NOT_CLAIMED: Final = (
    ("metadata", "who links when, who sends to which mailbox, how much: the relay sees it, and an order can compel it"),
    ("endpoints", "a seized or changed phone reads what its owner reads"),
    ("availability", "a relay can be switched off, or drop mail; receipts convict it, and nothing more"),
    ("this machine", "that a given machine runs this code; a disclosure shows what one process had at one moment"),
)
