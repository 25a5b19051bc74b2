"""Hooks of mkdocs: pages that are made of other files, links that fit the site, and formulas.

* The README, `CONTRIBUTING.md`, `CHANGELOG.md` and the reports in `benchmarks/` are pages, and so
  is each example (`tools/docs_gallery.py`).
* Links lead to files as they lie in the repository, so that they work there, too. Here they become
  links between pages.
* A formula is MathML when the page is built: the browser sets it, without script, font or network.
* `<!-- figure: case | peer | mode -->` becomes the median that `benchmarks/REPORT.md` has for it.
"""

import html
import logging
import posixpath
import re
from pathlib import Path

from docs_gallery import example_page, gallery_page, sources
from gallery import names
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LOG = logging.getLogger("mkdocs.hooks.diffeq")

_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)  # what pymdownx.arithmatex makes of $…$ and $$…$$
_FIGURE = re.compile(r"<!-- figure: ([^|]+) \| ([^|]+) \| ([^|]+) -->")


# --- files ----------------------------------------------------------------------------------------


def on_files(files, config):
    """Pages and pictures from outside of `docs/` are part of the site."""
    texts = {
        "overview.md": "README.md",
        "CONTRIBUTING.md": "CONTRIBUTING.md",
        "CHANGELOG.md": "CHANGELOG.md",
    } | {str(path.relative_to(ROOT)): str(path.relative_to(ROOT)) for path in _reports()}
    for name, source in texts.items():
        text = (ROOT / source).read_text(encoding="utf8")
        files.append(File.generated(config, name, content=relinked(text, source)))
    files.append(File.generated(config, "gallery/index.md", content=gallery_page()))
    for name in names():
        page = File.generated(config, f"gallery/{name}.md", content=example_page(name))
        files.append(page)
    for path in [*sources(), *sorted((ROOT / "benchmarks" / "plots").glob("*.png"))]:
        name = str(path.relative_to(ROOT))
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(
        File.generated(config, "LICENSE.txt", content=(ROOT / "LICENSE").read_text("utf8"))
    )
    return files


def _reports() -> list[Path]:
    return sorted(
        [*(ROOT / "benchmarks").glob("*.md"), *(ROOT / "benchmarks").glob("results/*.md")]
    )


# --- text -----------------------------------------------------------------------------------------


def on_page_markdown(markdown, page, config, files):
    """Links and figures of the pages in `docs/`."""
    if page.file.generated_by is None:
        markdown = relinked(markdown, f"docs/{page.file.src_uri}")
    return _FIGURE.sub(lambda found: measured(*found.groups()), markdown)


def relinked(text: str, source: str) -> str:
    """The text of a file of the repository, with links between files as links between pages."""

    def link(found: re.Match) -> str:
        target, anchor = found[1], found[2] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if "://" in target or path.startswith("..") or not (ROOT / path).exists():
            return found[0]
        here = posixpath.dirname(_in_site(source))
        return f"]({posixpath.relpath(_in_site(path), here or '.')}{anchor})"

    return _LINK.sub(link, text)


def _in_site(path: str) -> str:
    """Where a file of the repository is in the site."""
    named = {"README.md": "overview.md", "LICENSE": "LICENSE.txt"}
    if path in ("examples", "examples/README.md"):
        return "gallery/index.md"
    if path.startswith("examples/") and path.endswith(".py"):
        return f"gallery/{Path(path).stem}.md"
    return named.get(path, path.removeprefix("docs/"))


def measured(case: str, peer: str, mode: str) -> str:
    """The median of a peer in a case of `benchmarks/REPORT.md`."""
    report = (ROOT / "benchmarks" / "REPORT.md").read_text(encoding="utf8")
    _, _, section = report.partition(f"### {case}\n")
    row = re.search(
        rf"^\| {re.escape(peer)} \| {re.escape(mode)} \|(?:[^|]*\|){{2}} ([^|]+) \|",
        section.partition("\n### ")[0],
        re.MULTILINE,
    )
    if row is None:
        raise ValueError(f"benchmarks/REPORT.md has no row {peer!r}, {mode!r} under {case!r}.")
    return row[1].replace(" ", "\N{NO-BREAK SPACE}")


# --- formulas -------------------------------------------------------------------------------------


def on_page_content(content, page, config, files):
    """Formulas of a page."""
    return _FORMULA.sub(lambda found: formula(found[2], found[1] == "div", page), content)


def formula(latex: str, display: bool, page) -> str:
    """MathML of a formula. One that cannot be read is a warning, and so ends a strict build."""
    source = html.unescape(latex).strip()
    try:
        mathml = convert(source, display="block" if display else "inline")
    except Exception as error:
        LOG.warning("%s: the formula %r cannot be read: %r", page.file.src_uri, source, error)
        return html.escape(source)
    if unread := re.findall(r"<m[io]>(\\[a-zA-Z]+)", mathml):
        LOG.warning("%s: %s in the formula %r are not known", page.file.src_uri, unread, source)
    return f'<div class="formula">{mathml}</div>' if display else mathml
