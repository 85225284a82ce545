"""Build the book into _build/html: execute what changed, then Sphinx with every warning an error.

    python tools/book.py [--no-execute]

A second call with nothing changed takes a second or two.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chapters
import yaml
from digest import ROOT, digest

BUILD = ROOT / "_build"
HTML = BUILD / "html"
STAMP = BUILD / "passed" / "html"


def remote_url() -> str | None:
    """https address of the repository on GitHub, from git itself; None if there is none."""
    answer = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"github\.com[:/]([\w.-]+)/([\w.-]+?)(?:\.git)?/?$", answer.stdout.strip())
    return f"https://github.com/{found[1]}/{found[2]}" if found else None


def derived_config() -> dict[str, Any]:
    """_config.yml plus what depends on this machine: the cache folder, and buttons if there is a repository."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["cache"] = str(chapters.cache_path())
    config["sphinx"]["local_extensions"] = {"mame_book": str(ROOT / "book" / "_ext")}
    url = remote_url()
    if url:
        owner, name = url.split("/")[-2:]
        config["repository"] = {"url": url, "path_to_book": "", "branch": "main"}
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
        config["html"] |= {
            "use_repository_button": True,
            "use_issues_button": True,
            "use_edit_page_button": True,
            "baseurl": f"https://{owner}.github.io/{name}/",
        }
        config["sphinx"]["config"]["ogp_site_url"] = config["html"]["baseurl"]
    return config


def state() -> str:
    """Digest of everything the pages depend on."""
    inputs = ("_config.yml", "_toc.yml", "book", "tools/book.py", "tools/chapters.py", "mame_lib", "constraints")
    return digest((ROOT / name for name in inputs), extra=f"{remote_url()} {chapters.cache_path().name}")


def build_html() -> int:
    """Run Jupyter Book; returns its exit status."""
    BUILD.mkdir(exist_ok=True)
    config = BUILD / "_config.yml"
    config.write_text(yaml.safe_dump(derived_config(), sort_keys=False, allow_unicode=True))
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", ".", "--config", str(config), "-W", "-n", "--keep-going", "-q"]
    log = BUILD / "build.log"
    with log.open("w") as stream:
        status = subprocess.call(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
                                 env={**os.environ, **chapters.SILENT})  # fmt: skip
    if status:
        lines = log.read_text().splitlines()
        told = [line for line in lines if re.search(r"WARNING|ERROR|Error|error:", line)]
        print("\n".join(told[:40] or lines[-30:]), file=sys.stderr)
        print(f"The book did not build; the whole log is {log.relative_to(ROOT)}.", file=sys.stderr)
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book into _build/html.")
    parser.add_argument("--no-execute", action="store_true", help="leave execution to Sphinx")
    options = parser.parse_args()
    if not options.no_execute:
        status = chapters.main([])
        if status:
            print("A chapter failed: the book was not built.", file=sys.stderr)
            return status
    now = state()
    if (HTML / "index.html").exists() and STAMP.exists() and STAMP.read_text() == now:
        print("The book is up to date: _build/html/index.html")
        return 0
    start = time.monotonic()
    STAMP.unlink(missing_ok=True)
    status = build_html()
    if status == 0 and remote_url() is None:
        print("There is no GitHub remote named origin, so the pages have no buttons to repository, Colab and Binder.")
    if status == 0:
        STAMP.parent.mkdir(parents=True, exist_ok=True)
        STAMP.write_text(now)
        print(f"The book was built in {time.monotonic() - start:.0f} s: _build/html/index.html")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
