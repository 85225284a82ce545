"""The script of the rating page, which `page` puts into it: no library, no request (but to its own server, if served).

What the page knows of a reader is one object: `ratings` and `seconds` by case, `at`, the number of the case on the
screen, and `token`, by which a server knows her again. It is kept in the browser under the study and the reader's code.
"""

SCRIPT = r"""
(() => {
"use strict";
const $ = (id) => document.getElementById(id), data = JSON.parse($("study").textContent);
const NAME = /^[A-Za-z0-9_-]{1,40}$/, HEADING = data.columns.join(","), practice = Object.keys(data.practice);
const buttons = [...document.querySelectorAll("#scale button")], sections = ["start", "rate", "end"].map($);
let reader = "", list = [], cases = [], state = null, since = null, spent = {}, dirty = false, zoom = 0, queue = null;

// The reader's own order, as mame_lib.evaluation.readers.study.order computes it.
const orderOf = (code) => {
  let s = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${data.salt}:${code}`)) s = Math.imul(s ^ byte, 0x01000193);
  const draw = () => {
    s = (s + 0x6d2b79f5) | 0;
    let x = Math.imul(s ^ s >>> 15, s | 1);
    x ^= x + Math.imul(x ^ x >>> 7, x | 61);
    return (x ^ x >>> 14) >>> 0;
  };
  const first = data.cases.filter((name) => !(name in data.repeats)).sort();
  for (let i = first.length - 1; i > 0; i--) {
    const j = draw() % (i + 1);
    [first[i], first[j]] = [first[j], first[i]];
  }
  const again = Object.fromEntries(Object.entries(data.repeats).map(([second, shown]) => [shown, second]));
  return [...first, ...first.filter((name) => name in again).map((name) => again[name])];
};

// What the browser keeps. Where it keeps nothing (private windows, strict settings) the file must do.
const place = (code) => `mame-readers:${data.study}:${code}`;
const keep = () => {
  try { localStorage.setItem(place(reader), JSON.stringify(state)); return true; } catch { return false; }
};
const kept = (code) => {
  try {
    const found = JSON.parse(localStorage.getItem(place(code)));
    return found && typeof found.ratings === "object" ? found : null;
  } catch { return null; }
};
const fresh = () => ({ratings: {}, seconds: {}, at: 0,
  token: [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("")});

const rated = () => cases.filter((name) => name in state.ratings);
const csv = () => [HEADING, ...rated().map((name) => [data.study, reader, name, state.ratings[name],
  state.seconds[name].toFixed(1), cases.indexOf(name) + 1].join(","))].join("\n") + "\n";
const say = (text) => { $("said").textContent = text; };
const tell = (text) => document.querySelectorAll(".saved").forEach((p) => { p.textContent = text; });

// To the server that served this page, one request after another; `why` it was not saved, "" if it was.
const post = async () => {
  try {
    const answer = await fetch("ratings/" + reader, {method: "POST", body: csv(),
      headers: {"Content-Type": "text/csv", "X-Mame-Token": state.token}});
    const why = answer.ok ? "" : (await answer.text()).trim() || `error ${answer.status}`;
    return {why, taken: answer.status === 409};
  } catch { return {why: "the server does not answer", taken: false}; }
};
const save = () => {
  if (!keep() && !data.served) tell("This browser keeps nothing: save the file before you close the page.");
  if (!data.served) return;
  const number = rated().length;
  queue = (queue || Promise.resolve()).then(post).then(({why}) => {
    if (!why && number === rated().length) dirty = false;
    tell(why ? `Not saved on the server: ${why}. Go on, and save the file at the end.` : "Saved on the server.");
  });
};

// The clock of a case runs while its picture is on the screen.
const stop = () => {
  const name = list[state.at];
  if (since !== null) spent[name] = (spent[name] || 0) + (performance.now() - since) / 1000;
  since = null;
};
const start = () => { since = document.hidden || $("rate").hidden ? null : performance.now(); };
document.addEventListener("visibilitychange", () => { if (state) { stop(); start(); } });

const open = (name, focus) => {
  sections.forEach((section) => { section.hidden = section.id !== name; });
  $(focus).focus();
};
const mark = () => {
  const name = list[state.at], given = state.ratings[name], last = state.at === list.length - 1;
  buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === given)));
  $("next").setAttribute("aria-disabled", String(given === undefined));
  $("next").textContent = last ? "Finish" : "Next";
  $("back").setAttribute("aria-disabled", String(state.at === 0));
  $("done").value = rated().length;
  $("sofar").value = csv();
  const truth = data.practice[name];
  if (given === undefined) say("");
  else if (truth) say(`You said: ${data.scale[given]}. This practice image is ${truth}.`);
  else say(`You said: ${data.scale[given]}.`);
};
const show = (at) => {
  stop();
  state.at = at;
  const name = list[at], trial = at < practice.length, number = at + 1 - (trial ? 0 : practice.length);
  $("title").textContent = `${trial ? "Practice" : "Case"} ${number} of ${trial ? practice.length : cases.length}`;
  $("image").src = data.images[name];
  $("image").alt = "A mammogram to judge. The picture is the question, so it is not described.";
  mark();
  open("rate", "title");
  enlarge(0);
  start();
  save();
};
const rate = (value) => {
  const name = list[state.at];
  stop(); start();
  state.ratings[name] = value;
  state.seconds[name] = spent[name] || 0;
  dirty = dirty || !(name in data.practice);
  mark();
  keep();
  $("next").focus();
};
const next = () => {
  if (state.ratings[list[state.at]] === undefined) say("Rate this image first: press 0, 1, 2, 3 or 4.");
  else if (state.at < list.length - 1) show(state.at + 1);
  else finish();
};
const back = () => { if (state.at > 0) show(state.at - 1); };
const finish = () => {
  const missing = list.findIndex((name) => state.ratings[name] === undefined);
  if (missing >= 0) { show(missing); say("This image has no rating yet."); return; }
  stop();
  $("count").textContent = cases.length;
  $("csv").value = csv();
  open("end", "thanks");
  save();
};

// Whole numbers of screen pixels for a pixel of the image: nothing is interpolated.
const enlarge = (by) => {
  const fits = Math.max(1, Math.floor(Math.min($("frame").clientWidth, 0.62 * innerHeight) / data.size));
  zoom = Math.min(8, Math.max(1, (zoom || fits) + by));
  $("image").width = $("image").height = zoom * data.size;
  $("scaled").textContent = `${zoom} ×`;
};

const begin = async (code, found) => {
  reader = code;
  cases = orderOf(code);
  list = [...practice, ...cases];
  state = found || fresh();
  spent = {...state.seconds};
  if (data.served) {
    const {why, taken} = await post();
    if (taken) { state = null; $("wrong").textContent = why; $("code").focus(); return; }
    if (why) tell(`Not saved on the server: ${why}.`);
  }
  const before = rated().length;
  if (before === cases.length) { finish(); return; }
  show(Math.min(Math.max(0, state.at), list.length - 1));
  if (before) say(`Welcome back: ${before} of ${cases.length} are rated already.`);
};
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const code = $("code").value.trim();
  $("wrong").textContent = NAME.test(code) ? "" : "Use 1 to 40 letters, digits, - or _.";
  if (NAME.test(code)) begin(code, kept(code)); else $("code").focus();
});

// Go on from a file that was saved before.
$("file").addEventListener("change", async () => {
  const [heading, ...lines] = (await $("file").files[0].text()).replace(/^\ufeff/, "").trim().split(/\r?\n/);
  const rows = lines.map((line) => line.split(",")), code = rows.length ? rows[0][1] : "";
  const good = heading === HEADING && NAME.test(code) && rows.every((row) => row.length === 6 && row[1] === code &&
    row[0] === data.study && data.cases.includes(row[2]) && /^[0-4]$/.test(row[3]) && /^\d{1,9}(\.\d+)?$/.test(row[4]));
  $("file").value = "";
  if (!good) { $("wrong").textContent = "This is no file of ratings of this study, or it is damaged."; return; }
  const found = kept(code) || fresh(), known = orderOf(code);
  for (const [, , name, rating, seconds] of rows) {
    found.ratings[name] = +rating;
    found.seconds[name] = +seconds;
  }
  practice.forEach((name) => { found.ratings[name] ??= 2; found.seconds[name] ??= 0; });  // not asked again
  const missing = known.findIndex((name) => found.ratings[name] === undefined);
  found.at = practice.length + Math.max(0, missing);
  begin(code, found);
});

const download = () => {
  const link = document.createElement("a"), address = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  link.href = address;
  link.download = `${data.study}_${reader}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  dirty = false;
  tell(`Saved as ${link.download}, if your browser allows it; otherwise copy the text.`);
};
document.querySelectorAll(".download").forEach((button) => button.addEventListener("click", download));
$("copy").addEventListener("click", async () => {
  $("csv").select();
  try { await navigator.clipboard.writeText(csv()); tell("Copied."); dirty = false; }
  catch { tell("The text is marked: copy it with Ctrl+C or ⌘C."); }
});
buttons.forEach((button, i) => button.addEventListener("click", () => rate(i)));
$("next").addEventListener("click", next);
$("back").addEventListener("click", back);
$("again").addEventListener("click", () => show(list.length - 1));
$("larger").addEventListener("click", () => enlarge(1));
$("smaller").addEventListener("click", () => enlarge(-1));

document.addEventListener("keydown", (event) => {
  const at = event.target, scrolls = at === $("frame") && at.scrollWidth > at.clientWidth;
  if ($("rate").hidden || event.ctrlKey || event.metaKey || event.altKey || at.matches("textarea, summary")) return;
  const own = at.matches("button") && !at.matches("#next");  // Enter and Space press the button that has the focus
  const acts = {ArrowRight: scrolls ? null : next, ArrowLeft: scrolls ? null : back, Backspace: back,
    "+": () => enlarge(1), "=": () => enlarge(1), "-": () => enlarge(-1), Enter: own ? null : next,
    " ": own ? null : next};
  const act = /^[0-4]$/.test(event.key) ? () => rate(+event.key) : acts[event.key];
  if (!act) return;
  event.preventDefault();
  if (!event.repeat || act !== next) act();
});
addEventListener("beforeunload", (event) => { if (dirty) { event.preventDefault(); event.returnValue = ""; } });
})();
"""
