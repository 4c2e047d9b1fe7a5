"""Identities, prekeys, handshake, ratchet, chunks, vault and safety numbers. Imports wire only."""
