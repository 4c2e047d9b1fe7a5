"""Disclosures made to break their reader: a corpus, a fuzzer, and a watch over what an audit does beside reading."""
