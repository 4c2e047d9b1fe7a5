"""Evidence that convicts a relay before a third party (protocol.md section 14; docs/verifier.md, Evidence).

    judge.py    what became of one receipted envelope, by one disclosure
    gather.py   disclosures and receipts in, bundles of evidence out
    bundle.py   the file: canonical, and strict about what it may hold
    proof.py    one bundle and the relay's card in, what it convicts the relay of out; trusts nobody else

`python -m audit.evidence FILE --relay-card CARD` is `proof.py` alone: whoever gathered a bundle is not believed.
"""

from audit.evidence.bundle import Bundle, Kind, decode_bundle, encode_bundle
from audit.evidence.gather import Accusation, Completeness, gather
from audit.evidence.proof import Conviction, prove

__all__ = [
    "Accusation",
    "Bundle",
    "Completeness",
    "Conviction",
    "Kind",
    "decode_bundle",
    "encode_bundle",
    "gather",
    "prove",
]
