"""The rating page as a file, and the server that gives it away: no request, no truth, no way to the key."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.page import rating_page
from mame_lib.evaluation.readers.ratings import Rating, read_ratings, to_csv
from mame_lib.evaluation.readers.server import CodeTaken, StudyServer
from mame_lib.evaluation.readers.study import Study, make_study

TOKEN, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def study(tmp_path: Path) -> Study:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16)).astype(np.uint8)
    return make_study(
        tmp_path / "s", list(pixels[:6]), list(pixels[6:]), cases_each=5, seed=1, practice=1, repeats=2,
        title="A <b>title</b> & more", about="Phantoms </script> stand for real images.",
    )  # fmt: skip


def said(study: Study, reader: str, count: int = 3) -> list[Rating]:
    return [Rating(study.id, reader, case, k % 5, 1.5, k + 1) for k, case in enumerate(study.order(reader)[:count])]


def test_the_page_is_one_file_without_the_truth(study: Study) -> None:
    page = (study.root / "share" / "rate.html").read_text()
    assert page == rating_page(study)
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, flags=re.S)
    assert found
    data = json.loads(found[1])
    assert set(data["images"]) == {*study.cases, *study.practice} and len(set(map(len, data["images"].values()))) == 1
    assert data["practice"] == study.practice and not data["served"]
    rest = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.findall(r"(?:https?:)?//[a-z]|@import|url\(", rest)
    assert re.findall(r'(?:src|href)="([^"]*)"', rest) == ["data:,"]
    assert "A &lt;b&gt;title&lt;/b&gt; &amp; more" in page and "Phantoms &lt;/script&gt;" in page
    assert page.count("<script") == page.count("</script>") == 2


def test_the_policy_forbids_requests_but_to_the_own_server(study: Study) -> None:
    def policy(page: str) -> str:
        found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert found
        return found[1]

    assert "default-src 'none'" in policy(rating_page(study)) and "connect-src" not in policy(rating_page(study))
    assert "connect-src 'self'" in policy(rating_page(study, served=True))


@pytest.fixture
def server(study: Study) -> Iterator[StudyServer]:
    with StudyServer(study.root) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def ask(server: StudyServer, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, names)
    answer = connection.getresponse()
    text = answer.read().decode("latin-1")
    connection.close()
    return answer.status, text


def test_the_server_gives_the_page_and_images_away_and_nothing_else(server: StudyServer) -> None:
    status, page = ask(server, "/")
    assert status == 200 and "connect-src 'self'" in page and ask(server, "/rate.html?x=1") == (status, page)
    case = server.study.cases[0]
    assert ask(server, f"/images/{case}.png")[1].encode("latin-1") == server.study.file(case).read_bytes()
    for path in (
        "/key.csv", "/../key.csv", "/images/../../key.csv", "/images/%2e%2e/%2e%2e/key.csv", "/recipe.json",
        "/ratings/anna.csv", "/study.json", "/images/", f"/images/{case}.png/", "/images/..%5c..%5ckey.csv",
    ):  # fmt: skip
        assert ask(server, path)[0] == 404, path


def test_ratings_come_in_and_stay_the_readers_own(server: StudyServer) -> None:
    study, folder = server.study, server.study.root / "ratings"
    assert ask(server, "/ratings/anna", to_csv([]), X_Mame_Token=TOKEN)[0] == 200
    assert not list(folder.glob("*.csv"))
    assert ask(server, "/ratings/ANNA", to_csv([]), X_Mame_Token=OTHER)[0] == 409  # the code alone is taken
    for count in (2, 5):
        mine = said(study, "anna", count)
        assert ask(server, "/ratings/anna", to_csv(mine), X_Mame_Token=TOKEN) == (200, f"{count} ratings")
        assert read_ratings(folder / "anna.csv") == mine
    for name in ("anna", "Anna"):  # some disks take them for the same file
        status, why = ask(server, f"/ratings/{name}", to_csv(said(study, name)), X_Mame_Token=OTHER)
        assert status == 409 and "is taken" in why
    (folder / "bob.csv").write_text(to_csv(said(study, "bob")))  # came by mail
    for name in ("bob", "BOB"):
        assert ask(server, f"/ratings/{name}", to_csv(said(study, name, 1)), X_Mame_Token=TOKEN)[0] == 409
    assert read_ratings(folder / "anna.csv") == said(study, "anna", 5)
    assert TOKEN not in "".join(path.read_text() for path in folder.iterdir())
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    "path, change, words",
    [
        ("/ratings/anna", lambda text: text.replace("anna", "bob"), "400 the ratings are of bob"),
        ("/ratings/anna", lambda text: text.replace("study-", "other-"), "400 the ratings are of anna in other"),
        ("/ratings/anna", lambda text: text + text.splitlines()[1] + "\n", "400 the case"),
        ("/ratings/anna", lambda text: text.replace(",1.5,1\n", ",1.5,2\n"), "400 anna has no case"),
        ("/ratings/anna", lambda text: text.replace(",0,", ",7,"), "400 the ratings, line 2: the rating 7"),
        ("/ratings/anna", lambda text: "", "400 the ratings, line 1"),
        ("/ratings/anna", lambda text: text + "\xff" * 10_000, "413 too many"),
        ("/ratings/../key", lambda text: text, "404"),
        ("/ratings/%2e%2e", lambda text: text, "404"),
        ("/ratings/a/b", lambda text: text, "404"),
        ("/ratings/" + "a" * 41, lambda text: text, "404"),
        ("/key.csv", lambda text: text, "404"),
    ],
)
def test_bad_ratings_are_refused(server: StudyServer, path: str, change, words: str) -> None:
    key = (server.study.root / "key.csv").read_bytes()
    status, why = ask(server, path, change(to_csv(said(server.study, "anna"))), X_Mame_Token=TOKEN)
    assert f"{status} {why}".startswith(words)
    assert not list((server.study.root / "ratings").glob("*.csv"))
    assert (server.study.root / "key.csv").read_bytes() == key


def test_other_origins_and_strange_hosts_are_refused(server: StudyServer) -> None:
    text, port = to_csv(said(server.study, "anna")), server.server_address[1]
    for headers in (
        dict(X_Mame_Token=TOKEN, Origin="http://evil.example"), dict(X_Mame_Token=TOKEN, Host=f"evil.example:{port}"),
    ):  # fmt: skip
        assert ask(server, "/ratings/anna", text, **headers)[0] == 403
    assert ask(server, "/ratings/anna", text)[0] == ask(server, "/ratings/anna", text, X_Mame_Token="../x")[0] == 400
    assert ask(server, "/", Host="evil.example")[0] == 403
    good = dict(X_Mame_Token=TOKEN, Origin=f"http://localhost:{port}", Host=f"localhost:{port}")
    assert ask(server, "/ratings/anna", text, **good)[0] == 200


def test_many_readers_at_once(server: StudyServer) -> None:
    names = [f"reader-{k}" for k in range(12)]

    def send(name: str) -> None:
        for count in (1, 4, 12):
            assert server.keep(name, TOKEN, to_csv(said(server.study, name, count))) == count

    threads = [threading.Thread(target=send, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_ratings(sorted((server.study.root / "ratings").glob("*.csv")))) == 12 * len(server.study.cases[:12])
    with pytest.raises(CodeTaken):
        server.keep("reader-3", OTHER, to_csv([]))


def test_an_address_in_use_has_one_sentence(server: StudyServer) -> None:
    with pytest.raises(InputError, match="choose another --port"):
        StudyServer(server.study.root, port=server.server_address[1])
    with pytest.raises(InputError, match="is no reader study"):
        StudyServer(server.study.root / "share")
