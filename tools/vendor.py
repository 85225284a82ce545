"""Fetch the two JavaScript libraries of the book, so that a page never asks the network for them.

    python tools/vendor.py            # check what is committed: every file is there, and no CDN
    python tools/vendor.py --fetch    # download from the npm registry, verify sha512, unpack

MathJax 3.2.2 (Apache-2.0) sets the formulas; html-manager 1.0.15 (BSD-3-Clause) draws the widgets. Both name a CDN
for what this book does not use (speech rules, widgets of third parties); `offline` takes those addresses out.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[1] / "book" / "_static" / "vendor"

# folder -> (tarball, sha512, {path inside the package: path inside our folder})
PACKAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "mathjax": (
        "https://registry.npmjs.org/mathjax/-/mathjax-3.2.2.tgz",
        "06df9249553c7811b6ef30a155ec0e89c62ced7b1db78d2a9b8f94a47c97ee4d"
        "3f3bd36588f73ec7bee4d7f144b0fb2328f64626fb5164cd6f3be81e5b43a11b",
        {
            "package/LICENSE": "LICENSE",
            "package/es5/tex-mml-chtml.js": "tex-mml-chtml.js",
            "package/es5/output/chtml/fonts/woff-v2/": "output/chtml/fonts/woff-v2/",
        },
    ),
    "html-manager": (
        "https://registry.npmjs.org/@jupyter-widgets/html-manager/-/html-manager-1.0.15.tgz",
        "e6d841215eb298d8263d5387bf3c7e806cbc6522a649ace1b46c38fdce312435"
        "734611bd3d3790b118c5dc5513a29bc58bffd200178dcf5ca9e3b6c2ac9dc240",
        {
            "package/dist/embed.js": "embed.js",
            "package/dist/embed.js.LICENSE.txt": "embed.js.LICENSE.txt",
            "package/dist/1551f4f60c37af51121f.woff2": "1551f4f60c37af51121f.woff2",
            "package/dist/7a3337626410ca2f4071.woff2": "7a3337626410ca2f4071.woff2",
            "package/dist/d878b0a6a1144760244f.woff2": "d878b0a6a1144760244f.woff2",
        },
    ),
}


CDN, ABSENT = b"https://cdn.jsdelivr.net/npm/", b"./absent/"
CHANGED = b"\n/* Changed for this book by tools/vendor.py: the addresses of a CDN were replaced by ./absent/. */\n"


def offline(name: str, data: bytes) -> bytes:
    """A script that cannot ask a CDN for more, with the notice of the change; anything else as it is."""
    return data.replace(CDN, ABSENT) + CHANGED if name.endswith(".js") and CDN in data else data


def unpack(tarball: bytes, sha512: str, wanted: dict[str, str], folder: Path) -> int:
    """Write the wanted members of a verified tarball into `folder`; returns how many."""
    if hashlib.sha512(tarball).hexdigest() != sha512:
        raise SystemExit(f"{folder.name}: the download does not have the expected sha512: not written.")
    written = 0
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        for member in archive.getmembers():
            for source, target in wanted.items():
                inside = member.name.startswith(source) if source.endswith("/") else member.name == source
                data = archive.extractfile(member) if inside else None
                if data is None:
                    continue
                suffix = member.name[len(source) :] if source.endswith("/") else ""
                path = folder / (target + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(offline(path.name, data.read()))
                written += 1
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fetch", action="store_true", help="download and unpack again")
    parser.add_argument("--from", dest="folder", type=Path, help="read the .tgz files of this folder")
    arguments = parser.parse_args()
    for name, (url, sha512, wanted) in PACKAGES.items():
        if arguments.fetch:
            if arguments.folder:
                local = [p for p in arguments.folder.glob("*.tgz") if url.rsplit("/", 1)[1] in p.name]
                tarball = local[0].read_bytes()
            else:
                with urllib.request.urlopen(url, timeout=120) as answer:
                    tarball = answer.read()
            print(f"{name}: {unpack(tarball, sha512, wanted, VENDOR / name)} files")
        missing = [target for target in wanted.values() if not (VENDOR / name / target).exists()]
        if missing:
            print(f"{name}: {missing[0]} is missing; run `python tools/vendor.py --fetch`.", file=sys.stderr)
            return 1
        asking = [path.name for path in (VENDOR / name).rglob("*.js") if CDN in path.read_bytes()]
        if asking:
            print(f"{name}: {asking[0]} names a CDN; run `python tools/vendor.py --fetch`.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
