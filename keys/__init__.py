"""Identities, prekeys, handshake, ratchet, vault, fingerprints and the transport PKI. Imports wire only."""
