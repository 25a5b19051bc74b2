"""The docs are true: their programs run and print what they say, their tables are current, and
every public name is in the reference.
"""

import contextlib
import importlib.util
import io
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from tests.static.test_public import NAMES
from tests.tiers import shortly

import diffeq as de
from diffeq.validation import tolerances

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FOLDERS = ("learn", "coming-from", "guides", "choose", "extend")
PAGES = [
    ROOT / "README.md",
    DOCS / "index.md",
    *(page for folder in FOLDERS for page in sorted((DOCS / folder).glob("*.md"))),
]
# What a page compares with, or is used with. A page is skipped where one of these is not installed.
PEERS = ("blackjax", "diffrax", "numpyro", "scipy", "torch", "torchdiffeq", "torchsde")
BLOCK = re.compile(r"^```python(?: [^\n]*)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"# → (.*)$", re.MULTILINE)


@pytest.fixture
def as_installed(monkeypatch):
    """No annotation is checked, as in a user's session: wrong calls get their own answers."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def programs(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf8"))


@pytest.mark.parametrize(
    "page", shortly(PAGES, "README", "calls", "saving", "controller"), ids=lambda page: page.stem
)
def test_programs_print_what_the_page_says(page: Path, as_installed) -> None:
    """Block by block in one namespace, in single precision, as a reader would run them."""
    for peer in PEERS:
        if re.search(rf"^\s*(?:import|from) {peer}\b", "\n".join(programs(page)), re.MULTILINE):
            pytest.importorskip(peer, reason=f"{peer} is not installed")
    names: dict = {"__name__": page.stem}
    with jax.enable_x64(False):
        for block in programs(page):
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block, str(page), "exec"), names)
            assert out.getvalue().splitlines() == SAID.findall(block), block


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    made = {"gallery/index.md", "overview.md", "benchmarks/REPORT.md", "benchmarks/README.md"}
    made |= {"CONTRIBUTING.md", "CHANGELOG.md"}  # of other files, by tools/docs_hooks.py
    assert set(re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE)) == pages | made


def test_links_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_the_reference_lists_every_public_name() -> None:
    pages = [page.read_text(encoding="utf8") for page in (DOCS / "reference").glob("*.md")]
    listed = re.findall(r"^::: diffeq\.(\S+)$", "\n".join(pages), re.MULTILINE)
    listed += re.findall(r"^ {8}- (\w+)$", "\n".join(pages), re.MULTILINE)
    listed += re.findall(
        r"`(?:de\.)?(\w+)(?:\(\))?`", (DOCS / "reference" / "all_methods.md").read_text("utf8")
    )
    last = {name.rpartition(".")[2] for name in listed}
    wanted = {name.rpartition(".")[2] for name in NAMES} - {"__version__"}
    assert wanted - last == set()


@pytest.mark.thorough
def test_tables_are_current() -> None:
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "tools" / "docs_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for path, page in tables.PAGES.items():
        assert page() == path.read_text(encoding="utf8"), "run: python tools/docs_tables.py"


def test_every_cited_key_is_in_the_bibliography() -> None:
    known = set(re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text("utf8"), re.M))
    cited = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf8")
        for line in re.findall(r"(?:Reference: |reference: |source=\")([^\n]*)", text):
            cited |= set(re.findall(r"\b[a-z]+(?:17|18|19|20)\d\d\b", line))
    assert cited - known == set()


DECAY = de.ODEProblem(lambda t, y, a: -y, jnp.ones(2), (0.0, 1.0))
RNG = np.random.default_rng(0)
PULSE = de.interp.Hold(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))
NOISY = de.SDEProblem(lambda t, y, a: -y, lambda t, y, a: y, jnp.ones(2), (0.0, 1.0))


def solved(f):
    return de.solve(DECAY.replace(f=f))


QUOTED = {
    "method is the string 'RK45'": lambda: de.solve(DECAY, "RK45"),
    "method is the class Tsit5": lambda: de.solve(DECAY, de.Tsit5),
    "f returned shape (3,); y has shape (2,)": lambda: solved(lambda t, y, a: jnp.ones(3)),
    "Attempted boolean conversion of traced array": lambda: solved(
        lambda t, y, a: y if y[0] > 0 else -y
    ),
    "Abstract tracer value encountered": lambda: solved(lambda t, y, a: math.sin(t) * y),
    "__array__() was called on traced array": lambda: solved(lambda t, y, a: np.array(y)),
    "has no error estimate": lambda: de.solve(DECAY, de.RK4()),
    "no method for general noise controls its steps": lambda: de.solve(
        NOISY.replace(diffusion=lambda t, y, a: jnp.outer(y, y), noise="general"),
        key=jax.random.key(0),
    ),
    "key is None": lambda: de.solve(NOISY),
    "plot() has one row to draw": lambda: de.solve(DECAY).plot(),
    "ODEProblem got 'p', which it does not know": lambda: de.ODEProblem(
        lambda t, y, a: -y, 1.0, (0.0, 1.0), p=2.0
    ),
    "an input that jumps": lambda: solved(lambda t, y, a: -PULSE(t % 0.7) * y),
    "drew a random number of NumPy": lambda: solved(lambda t, y, a: -RNG.random() * y),
    "float32 cannot hold an error below": lambda: de.solve(
        de.ODEProblem(lambda t, y, a: -y, jnp.float32(1.0), (0.0, jnp.float32(1.0))), rtol=1e-9
    ),
}


def quoted() -> list[str]:
    page = (DOCS / "choose" / "when-it-fails.md").read_text(encoding="utf8")
    table = page.partition("## Frequent errors")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]*)`(?: \(a warning\))? \|", table, re.MULTILINE)


def test_every_quoted_message_is_tried() -> None:
    assert quoted() == list(QUOTED)


@pytest.mark.parametrize("words", QUOTED)
def test_a_message_is_as_the_page_quotes_it(words: str, monkeypatch, as_installed) -> None:
    monkeypatch.setattr(tolerances, "_noticed", set())  # warnings that are given once
    with pytest.raises(Exception, match=re.escape(words)):
        QUOTED[words]()
