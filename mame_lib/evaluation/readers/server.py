"""A small server for a class: gives the rating page away and takes ratings in. Standard library only.

It knows four addresses: `/` and `/rate.html`, the page; `/images/CASE.png`; and POST `/ratings/READER`. Nothing is
looked up on the disk by an address, so no address leads to the key. It has no encryption and no passwords: it is for a
room and an hour, not for the internet.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import ratings
from mame_lib.evaluation.readers.page import POLICY, rating_page
from mame_lib.evaluation.readers.study import RATINGS, load_study

_LOCAL = ("127.0.0.1", "localhost", "::1")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_ROW = 200  # bytes of a rating at most


class CodeTaken(InputError):
    """The reader's code belongs to somebody else."""


class StudyServer(ThreadingHTTPServer):
    """Serves the study in `folder` at `host` and `port` (0: any free one) until it is shut down.

    Raises
    ------
    InputError
        If the folder holds no study, or the address can't be used.
    """

    daemon_threads = True

    def __init__(self, folder: str | Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.study = load_study(folder)
        self.page = rating_page(self.study, served=True).encode()
        self.images = {f"/images/{case}.png": self.study.file(case).read_bytes()
                       for case in (*self.study.cases, *self.study.practice)}  # fmt: skip
        self.ratings = Path(folder) / RATINGS
        self.ratings.mkdir(exist_ok=True)
        self.writing = threading.Lock()
        self.local = host in _LOCAL
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot serve at {host}, port {port} ({reason}); choose another --port.") from error

    @property
    def address(self) -> str:
        """What to type into a browser."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def keep(self, reader: str, token: str, text: str) -> int:
        """Check a reader's ratings and write them to ratings/READER.csv; the number of ratings.

        The first who comes under a code owns it: she proves it by her token, of which a hash is kept. Nobody else
        overwrites her ratings. Without ratings the code alone is taken.

        Raises
        ------
        CodeTaken
            If the code is another reader's.
        InputError
            If the ratings are not good.
        """
        found = [rating for _, rating in ratings.parse(text)]
        position = {case: number for number, case in enumerate(self.study.order(reader), 1)}
        for one in found:
            if (one.study, one.reader) != (self.study.id, reader):
                raise InputError(f"the ratings are of {one.reader} in {one.study}, not of {reader} in {self.study.id}.")
            if position.get(one.case) != one.position:
                raise InputError(f"{reader} has no case {one.case} at position {one.position} of this study.")
        if twice := [case for case, times in Counter(one.case for one in found).items() if times > 1]:
            raise InputError(f"the case {twice[0]} is rated twice.")
        with self.writing:
            self._claim(reader, token)
            if found:
                ratings.write_ratings(self.ratings / f"{reader}.csv", found)
        return len(found)

    def _claim(self, reader: str, token: str) -> None:
        owner, digest = self.ratings / f".{reader.lower()}.owner", hashlib.sha256(token.encode()).hexdigest()
        line = f"{reader} {digest}\n"
        if owner.exists():
            if owner.read_text(encoding="utf-8") == line:
                return
        elif reader.lower() not in (path.stem.lower() for path in self.ratings.glob("*.csv")):
            ratings.write_whole(owner, line)
            return
        raise CodeTaken(f"the code {reader} is taken; choose another, or go on in the browser where you began.")


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    server_version, sys_version = "mame", ""
    timeout = 30  # seconds that a silent client may hold a thread

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_ours():
            return
        if path in ("/", "/rate.html"):
            self._answer(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif path in self.server.images:
            self._answer(HTTPStatus.OK, self.server.images[path], "image/png")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"not found")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        reader, token = self.path.removeprefix("/ratings/"), self.headers.get("X-Mame-Token", "")
        length = self.headers.get("Content-Length", "")
        if self.path != f"/ratings/{reader}" or not ratings.NAME.fullmatch(reader):
            self._answer(HTTPStatus.NOT_FOUND, b"not found")
        elif not _TOKEN.fullmatch(token) or not re.fullmatch(r"[0-9]{1,9}", length):
            self._answer(HTTPStatus.BAD_REQUEST, b"a token and a length are needed")
        elif int(length) > _ROW * (len(self.server.study.cases) + 1):
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"too many ratings")
        else:
            self._take(reader, token, self.rfile.read(int(length)))

    def _take(self, reader: str, token: str, body: bytes) -> None:
        try:
            number = self.server.keep(reader, token, body.decode("utf-8"))
        except UnicodeDecodeError:
            self._answer(HTTPStatus.BAD_REQUEST, b"the ratings are not UTF-8 text")
        except InputError as error:
            status = HTTPStatus.CONFLICT if isinstance(error, CodeTaken) else HTTPStatus.BAD_REQUEST
            self._answer(status, str(error).encode())
        except OSError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot write ({error.strerror})".encode())
        else:
            self._answer(HTTPStatus.OK, f"{number} ratings".encode())

    def _is_ours(self) -> bool:
        """Refuse pages of other origins, and names of other hosts that were made to point here."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        good = origin in (None, f"http://{host}")
        if self.server.local:
            good = good and urlsplit(f"//{host}").hostname in _LOCAL
        if not good:
            self._answer(HTTPStatus.FORBIDDEN, b"forbidden")
        return good

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind, "Content-Length": str(len(body)), "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
            "Content-Security-Policy": f"{POLICY}; connect-src 'self'",
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: who rated when is in the files."""
