"""The relay: pure state machines, stores, transports and disclosure. Imports wire only, so it can reach no key."""
