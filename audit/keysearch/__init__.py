"""The search for keys that nobody volunteered: every window of a disclosure, tried by what it would open.

targets.py has what a key is known by, windows.py the candidates, forms.py what is compressed or encoded, trials.py the
tries, sections.py the parts of a disclosure, pool.py the processes, search.py the whole. docs/verifier.md has the page
for readers, with the limits.
"""

from audit.keysearch.coverage import Coverage, KeyHit, SectionFigures
from audit.keysearch.search import search_keys
from audit.keysearch.settings import ALIGNMENTS, QUICK, Form, KeyKind, KeySearchError, KeySearchSettings

__all__ = [
    "ALIGNMENTS",
    "QUICK",
    "Coverage",
    "Form",
    "KeyHit",
    "KeyKind",
    "KeySearchError",
    "KeySearchSettings",
    "SectionFigures",
    "search_keys",
]
