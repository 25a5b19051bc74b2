"""Hooks of mkdocs: the README is the home page, with its figure and links that fit the site."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_files(files, config):
    """Figures of the examples are part of the site."""
    for path in sorted((ROOT / "examples" / "figures").glob("*.png")):
        name = f"examples/figures/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """The README, with links below `docs/` made relative and those outside it as plain text."""
    if page.file.src_uri != "index.md":
        return markdown
    text = (ROOT / "README.md").read_text(encoding="utf8").replace("](docs/", "](")
    outside = r"(?<!!)\[([^\]]+)\]\((?:examples|benchmarks|CONTRIBUTING|LICENSE)[^)]*\)"
    return re.sub(outside, r"\1", text)
