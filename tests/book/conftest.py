"""The rendered book in headless Chromium: from a local server and from the folder itself."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Visit:
    """What happened while a page was open."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(scope="session")
def site() -> Path:
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built: make book")
    return HTML


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    """Address of a quiet local server of the built book."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium: install it (apt-get install chromium) or set CHROMIUM=/path/to/it")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """`visit(address, scheme="light", width=1280)` opens a page, scrolls it to the end and returns a `Visit`."""
    contexts = []

    def open_page(address: str, scheme: str = "light", width: int = 1280, scroll: bool = True) -> Visit:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(90_000)  # a busy machine is no fault of the page
        told = Visit(page)
        home = re.sub(r"/(book/)?[^/]*$", "", address)
        page.on("console", lambda m: told.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: told.complaints.append(str(error)))
        page.on("requestfailed", lambda r: told.complaints.append(f"failed: {r.url}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith((home, "data:", "blob:")) else told.foreign.append(r.url),
        )
        page.goto(address, wait_until="load")
        if scroll:
            page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
            page.evaluate("() => window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)")
            page.evaluate(
                "async () => { for (let y = 0; y < document.body.scrollHeight; y += 800) {"
                " window.scrollTo(0, y); await new Promise(r => setTimeout(r, 20)); } }"
            )
            # A busy machine scrolls past a lazy image before it is asked for.
            page.evaluate("() => { for (const image of document.images) image.loading = 'eager'; }")
            page.wait_for_function("[...document.images].every(i => i.complete)")
        return told

    yield open_page
    for context in contexts:
        context.close()
