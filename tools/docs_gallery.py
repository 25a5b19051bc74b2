"""The gallery of the site, made of `examples/`: a page of thumbnails, and one for each example."""

import re
from pathlib import Path

import gallery

__all__ = ["example_page", "gallery_page", "sources"]

_FENCE = "```"
_CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)

_HEAD = """---
hide: [navigation, toc]
---

# Gallery

Every program of `examples/`: its figure, and its number beside the published one. A picture leads
to the program, with its text. *Published* is what the paper of DiffEqFlux, its documentation or its
tests print, or the source that the text names; — is where they print no number. Ours are of
{machine}.

<div class="gallery" markdown>
"""


def gallery_page() -> str:
    """A card for each example: its figure, its title, and the rows that it printed."""
    machine = gallery.OUTPUT / "machine.txt"
    where = machine.read_text(encoding="utf8").strip() if machine.exists() else "one machine"
    return _HEAD.format(machine=where) + "\n".join(map(_card, gallery.names())) + "\n</div>\n"


def example_page(name: str) -> str:
    """An example as a page: its cells of text as text, those of code as code, and its figure."""
    source = (gallery.EXAMPLES / f"{name}.py").read_text(encoding="utf8")
    parts = _CELL.split(source)[1:]
    text = ""
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in kind:
            text += re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE) + "\n\n"
        else:
            text += f"{_FENCE}python\n{body.strip(chr(10))}\n{_FENCE}\n\n"
    heading, _, rest = text.partition("\n")
    figure = f"![{gallery.title(name)}](../examples/figures/{name}.png)"
    return f"{heading}\n\n{figure}\n\n{_table(name)}\n\n{rest.strip()}\n"


def _card(name: str) -> str:
    title = gallery.title(name)
    picture = f"[![{title}](../examples/figures/{name}.png){{ loading=lazy }}]({name}.md)"
    return (
        f'<div class="card" markdown>\n\n{picture}\n\n**[{title}]({name}.md)**\n\n'
        f"{_table(name)}\n\n</div>\n"
    )


def _table(name: str) -> str:
    rows = [f"| {what} | {published} | {ours} |" for what, published, ours, _ in gallery.rows(name)]
    return "\n".join(["| | published | ours |", "|---|---|---|", *rows])


def sources() -> list[Path]:
    """The figures of the examples."""
    return [gallery.EXAMPLES / "figures" / f"{name}.png" for name in gallery.names()]
