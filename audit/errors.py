"""The one family of errors that the verifier raises, whatever bytes it is given.

A disclosure comes from a party that may want the verifier to fail. So every parser here raises an `AuditError`, naming
the field or place and what is wrong with it, and nothing else; `run` turns each into a finding. Anything else that
escapes is a fault of the verifier (exit status 70).
"""

from __future__ import annotations


class AuditError(Exception):
    """Something in the material is not what it must be.

    Attributes:
        where: The field, file or place, in words.
        problem: What is wrong, in words; never a secret.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


class DecodeError(AuditError):
    """Bytes that are no canonical MessagePack, or not of the shape that protocol.md gives (section 1.2)."""


class SignatureError(AuditError):
    """A signature that libsodium's strict rule refuses (section 1.3)."""


class ProofError(AuditError):
    """An inclusion proof that does not lead to the root (RFC 9162 section 2.1.3)."""


class OpenError(AuditError):
    """A message key that does not open a body (section 4.3)."""


class SqliteError(AuditError):
    """A store that is not a well-formed SQLite file of the kind that section 9 asks for."""


class DisclosureError(AuditError):
    """A file of the disclosure that cannot be read as what it is said to be."""


class EvidenceError(AuditError):
    """A card, a commitments file or a volunteered file that cannot be used."""


class BoundError(AuditError):
    """More than the verifier takes on: no fault of the disclosure, so the audit is incomplete."""


class UnreadableError(AuditError):
    """A file that became shorter or could no longer be read while it was audited: incomplete, as above."""
