"""An extension of griffe: our docstrings say `Example:`, where Google's style says `Examples:`.

Doctests that stand in no section get one, so that the site shows them all as code.
"""

import re

from griffe import Extension

LOOSE = re.compile(r"((?:^>>> .*\n(?:^(?!>>> )\S.*(?:\n|\Z))*)+)", re.MULTILINE)


class Examples(Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj, **_):
        """Every object that has a docstring."""
        if obj.docstring is None or ">>> " not in obj.docstring.value:
            return
        text = re.sub(r"^Example:[^\n]*$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        indented = lambda m: "Examples:\n" + re.sub(r"^", "    ", m[1].rstrip("\n"), flags=re.M)
        obj.docstring.value = LOOSE.sub(lambda m: indented(m) + "\n", text)
