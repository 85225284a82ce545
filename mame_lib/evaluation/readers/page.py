"""The rating page: one HTML file with its images inside, that runs from a disk, a mail or a server, by keyboard.

It makes no request: its content security policy forbids any, but for a page that is served and saves to its own server.
It does not know what is real and what is not, except for practice cases.
"""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING

from mame_lib.evaluation.readers.page_script import SCRIPT
from mame_lib.evaluation.readers.ratings import COLUMNS, NAME_RULE, SCALE

if TYPE_CHECKING:
    from mame_lib.evaluation.readers.study import Study

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1e21; --quiet: #50565c; --line: #767c82;
  --button: #eef0f2; --strong: #0b62a4; --on: #fff; --bad: #a3161f; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --ink: #e8eaed; --quiet: #b4bac0; --line: #868c92;
  --button: #262b30; --strong: #7cbcf5; --on: #0c1216; --bad: #ff9a94; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; max-width: 46rem; padding: .6rem 1rem 2rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.15rem; margin: 0; } h2 { font-size: 1.1rem; margin: .2rem 0; outline: none; }
header p, .saved, .keys { color: var(--quiet); font-size: .88rem; margin: .1rem 0 .5rem; }
#frame { background: #24272b; overflow: auto; max-height: 75vh; padding: 8px; border-radius: 4px; text-align: center; }
/* A gray level on the screen is the gray level of the file: no filter, no interpolation, in the dark as well. */
#image { image-rendering: pixelated; filter: none; forced-color-adjust: none; vertical-align: top; max-width: none; }
button, input, textarea { font: inherit; color: inherit; }
button { background: var(--button); border: 1px solid var(--line); border-radius: 6px; padding: .4rem .8rem;
  min-height: 2.75rem; cursor: pointer; }
button.main, button[aria-pressed="true"] { background: var(--strong); border-color: var(--strong); color: var(--on); }
button[aria-disabled="true"] { opacity: .55; }
:is(button, input, textarea, summary, #frame):focus-visible { outline: 3px solid var(--strong); outline-offset: 2px; }
#scale { display: grid; grid-template-columns: repeat(5, 1fr); gap: .4rem; margin: .7rem 0 .4rem; }
#scale button { line-height: 1.2; padding: .4rem .3rem; }
kbd { font: inherit; font-weight: 700; border: 1px solid currentColor; border-radius: 3px; padding: 0 .35em; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .4rem 0; }
.row .far { margin-left: auto; }
progress { width: 100%; height: .6rem; accent-color: var(--strong); }
output { display: block; min-height: 1.6em; font-weight: 600; }
#wrong { color: var(--bad); }
input[type="text"] { background: var(--ground); border: 1px solid var(--line); border-radius: 4px; padding: .5rem;
  width: 16rem; max-width: 100%; }
textarea { width: 100%; height: 9rem; font: .8rem/1.4 ui-monospace, monospace; background: var(--ground);
  border: 1px solid var(--line); }
label { display: block; margin: .6rem 0 .2rem; }
@media (max-width: 40rem) { #scale { grid-template-columns: 1fr; gap: .3rem; }
  #scale button { text-align: left; padding: .4rem .7rem; }
  #scale kbd { margin-right: .5em; } .keys { display: none; } }
@media (min-width: 40.01rem) { #scale kbd { display: table; margin: 0 auto .2rem; } }
"""


def rating_page(study: Study, *, served: bool = False) -> str:
    """The page of a study as HTML; reads the images of its cases.

    served: the page comes from `server.StudyServer` and saves there after every case. Without it no request is made.
    """
    policy = POLICY + ("; connect-src 'self'" if served else "")
    names = (*study.practice, *study.cases)
    images = {name: _address(study.file(name).read_bytes()) for name in names}
    data = {
        "study": study.id, "size": study.size, "salt": study.salt, "cases": list(study.cases),
        "repeats": study.repeats, "practice": study.practice, "scale": list(SCALE), "columns": list(COLUMNS),
        "served": served, "images": images,
    }  # fmt: skip
    said = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    title = html.escape(study.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" '
        f'content="no-referrer">\n<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n'
        f"</head>\n<body>\n{_body(study, title)}\n"
        f'<script type="application/json" id="study">{said}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n'
    )


def _body(study: Study, title: str) -> str:
    from mame_lib.evaluation.readers.study import NOTICE

    scale = "".join(
        f'<button type="button" aria-pressed="false"><kbd>{value}</kbd>{words}</button>'
        for value, words in enumerate(SCALE)
    )
    trial = (
        f" {len(study.practice)} practice images come first: they tell you the truth and do not count."
        if study.practice else ""
    )  # fmt: skip
    keys = "Keys: <kbd>0</kbd> to <kbd>4</kbd> rate, <kbd>Space</kbd> or <kbd>Enter</kbd> next, <kbd>←</kbd> back, "
    keys += "<kbd>+</kbd> and <kbd>−</kbd> zoom."
    return f"""<header><h1>{title}</h1><p>{NOTICE}</p></header>
<noscript><p>This page needs JavaScript. It makes no request and sends nothing anywhere.</p></noscript>
<main>
<section id="start" aria-labelledby="welcome">
<h2 id="welcome" tabindex="-1">Before you begin</h2>
<p>You will see {len(study.cases)} mammograms, one after another. Say of each how real it looks, from
<b>0</b> ({SCALE[0]}) to <b>4</b> ({SCALE[4]}). There is no time limit, and you may go back.{trial}</p>
{f"<p>{html.escape(study.about)}</p>" if study.about else ""}
<p>You may close the page and go on later: this browser remembers, if you give the same code.</p>
<form id="form" novalidate>
<label for="code">Your reader code, not your name ({NAME_RULE})</label>
<div class="row"><input id="code" type="text" autocomplete="off" spellcheck="false" maxlength="40"
 aria-describedby="wrong"><button class="main" type="submit">Begin</button></div>
<p id="wrong" role="alert"></p>
<label for="file">Or go on from a file that you saved</label>
<input id="file" type="file" accept=".csv,text/csv">
</form>
</section>
<section id="rate" aria-labelledby="title" hidden>
<div class="row"><h2 id="title" tabindex="-1">Case</h2><span class="far"></span>
<button type="button" id="smaller" aria-label="Smaller">−</button><span id="scaled" aria-live="polite"></span>
<button type="button" id="larger" aria-label="Larger">+</button></div>
<div id="frame" tabindex="0" role="region" aria-label="The image"><img id="image" alt=""></div>
<div id="scale" role="group" aria-label="How real is it?">{scale}</div>
<output id="said" role="status" aria-live="polite"></output>
<div class="row"><button type="button" id="back">Back</button><button type="button" id="next" class="main">Next</button>
</div>
<progress id="done" max="{len(study.cases)}" value="0" aria-label="Cases rated"></progress>
<p class="keys">{keys}</p>
<details><summary>Save what you have so far</summary>
<p><button type="button" class="download">Save the file</button></p>
<label for="sofar">The same as text</label><textarea id="sofar" readonly></textarea></details>
<p class="saved" role="status"></p>
</section>
<section id="end" aria-labelledby="thanks" hidden>
<h2 id="thanks" tabindex="-1">Thank you: all <span id="count"></span> cases are rated</h2>
<p>Save the file, and send it to whoever asked you.</p>
<div class="row"><button type="button" class="download main">Save the file</button>
<button type="button" id="copy">Copy the text</button><button type="button" id="again">Back to the last image</button>
</div>
<p class="saved" role="status"></p>
<label for="csv">Your ratings</label><textarea id="csv" readonly></textarea>
</section>
</main>"""


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
