"""The site: what it is made of, as it was built (`make docs`), and in a browser if there is one."""

import functools
import http.server
import importlib
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
from tests.static.test_public import NAMES

import diffeq as de

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = ROOT / "build" / "site"
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
_IS_BUILT = (SITE / "index.html").exists()


def built(test):
    """A test of the built site; thorough, for CI builds the site before its thorough tests."""
    skipped = pytest.mark.skipif(not _IS_BUILT, reason="the site is not built: make docs")
    return pytest.mark.thorough(skipped(test))


# What a page may not have: a script, a style, a picture or a font that a network brings.
FROM_A_NETWORK = re.compile(
    r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//[^>]*>"
    r"|<link\b[^>]*\brel=\"?(?:stylesheet|preload|preconnect|icon)\b"
    r"[^>]*\bhref=\"?(?:https?:)?//[^>]*>"
    r"|@import\s+[^;]*//[^;]*;"
)
LOOKED_AT = (
    "", "gallery/", "gallery/spiral/", "choose/", "choose/when-it-fails/", "theory/derivative/",
    "coming-from/diffrax/", "guides/bayes/", "reference/solve/", "benchmarks/REPORT/",
)  # fmt: skip


@pytest.fixture
def gallery(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    return importlib.import_module("docs_gallery")


def test_every_example_is_in_the_gallery(gallery):
    page = gallery.gallery_page()
    for name in EXAMPLES:
        assert f"(../examples/figures/{name}.png)" in page, name
        assert f"]({name}.md)" in page, name
        assert gallery.gallery.rows(name), f"{name} has printed no number: make gallery"
        assert (ROOT / "examples" / "figures" / f"{name}.png").exists()


def test_an_example_is_a_page_with_all_of_its_code(gallery):
    for name in EXAMPLES:
        page = gallery.example_page(name)
        assert page.startswith("# "), name
        code = "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
        source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf8")
        kept = [line for line in source.splitlines() if line and not line.startswith("#")]
        assert [line for line in code.splitlines() if line and not line.startswith("#")] == kept


def test_every_status_is_explained():
    page = (DOCS / "choose" / "when-it-fails.md").read_text(encoding="utf8")
    table = page.partition("## Every status")[2].partition("\n## ")[0]
    missing = [status.name for status in de.Status if f"`{status.name}`" not in table]
    assert not missing, f"docs/choose/when-it-fails.md does not say what {missing} mean"


# --- as it was built ------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    return {
        str(path.relative_to(SITE)): path.read_text(encoding="utf8")
        for path in sorted(SITE.rglob("*.html"))
    }


@built
def test_nothing_comes_from_a_network():
    found = {name: FROM_A_NETWORK.findall(text) for name, text in pages().items()}
    assert {name: hits for name, hits in found.items() if hits} == {}
    assert FROM_A_NETWORK.search('<script src="https://cdn.example/mathjax.js"></script>')


@built
def test_formulas_are_set():
    texts = pages()
    left = [name for name, text in texts.items() if 'class="arithmatex"' in text]
    assert not left, f"{left} have formulas that are not MathML"
    assert texts["theory/derivative/index.html"].count("<math") > 20


@built
def test_the_front_page_has_a_number_of_the_report():
    text = pages()["index.html"]
    found = re.search(r"<strong>([\d.]+)\s(ns|µs|ms)</strong>", text)
    assert found
    assert f"| {found[1]} {found[2]} |" in (ROOT / "benchmarks" / "REPORT.md").read_text("utf8")


@built
def test_every_public_name_is_in_the_reference():
    text = " ".join(text for name, text in pages().items() if name.startswith("reference/"))
    words = set(re.findall(r"\w+", re.sub(r"<[^>]*>", " ", text)))
    wanted = {name.rpartition(".")[2] for name in NAMES} - {"__version__"}
    assert wanted - words == set()


# --- in a browser ---------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@built
@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (820, "light"), (1440, "light"), (1440, "dark")]
)
def test_pages_in_a_browser(address, browser, width, scheme):
    """The console has no error, nothing comes from a network, and no page is wider than the screen.

    The pictures are left in `build/screenshots`.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said = context.new_page(), []
    page.on(
        "console", lambda message: said.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda asked: None if asked.url.startswith(address) else said.append(asked.url)
    )
    page.on(
        "response", lambda got: said.append(f"{got.url} {got.status}") if got.status > 399 else None
    )
    for name in LOOKED_AT:
        page.goto(address + name, wait_until="load")
        shown = ROOT / "build" / "screenshots" / f"{name.strip('/').replace('/', '-') or 'home'}"
        page.screenshot(path=f"{shown}-{width}-{scheme}.png")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than a screen of {width}"
    context.close()
    assert said == []


@built
def test_the_search_finds(address, browser):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.keyboard.press("/")
    page.keyboard.type("checkpoint")
    page.wait_for_selector(".md-search-result__item", timeout=20_000)
    assert "checkpoint" in page.inner_text(".md-search-result__list").lower()
    page.close()
