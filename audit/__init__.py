"""The independent verifier: reads a disclosure, the written spec and volunteered secrets. Imports nothing of ours."""
