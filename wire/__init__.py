"""Formats that both sides speak: envelope, frame, link, padding, limits, errors, receipts. Imports nothing of ours."""
