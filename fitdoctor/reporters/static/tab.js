// The TensorBoard tab: asks the plugin for what is new, and shows it as the HTML report does.

import { Address } from "./address.js";
import { start } from "./app.js";
import { copyButton, el } from "./dom.js";
import { count, plural } from "./format.js";

const SOON = 1500; // ms between two questions while runs are being judged or growing
const LATER = 5000;

const HOW = `import fitdoctor

monitor = fitdoctor.attach(model, optimizer, criterion, logdir="runs/first")
...                    # your training loop, unchanged
monitor.close()`;

class Runs {
  #rows = new Map();
  #sheets = new Map();
  #changed = () => {};
  #session = "";
  #since = 0;
  #wanted = [];
  #failed = false;
  #last = { looked: false, total: 0, waiting: 0, trouble: [], places: [] };

  rows = () => [...this.#rows.values()];
  alone = () => this.#last.looked && this.#last.total === 1 && this.#rows.size === 1;
  listen = (changed) => (this.#changed = changed);

  /** Runs on the screen that are not judged yet are asked for first. */
  visible = (rows) => (this.#wanted = rows.filter((r) => !r.verdict && !r.failed).map((r) => r.number));

  sheet = async (run) => {
    const row = this.#rows.get(run);
    if (!row) return null;
    const known = this.#sheets.get(run);
    if (known?.version === row.version) return known.sheet;
    let sheet = null;
    try {
      sheet = await json(`./run?run=${encodeURIComponent(run)}`);
    } catch {
      return known?.sheet ?? null;
    }
    if (sheet) {
      sheet.row = { ...sheet.row, ...row };
      this.#sheets.set(run, { version: row.version, sheet });
      if (this.#sheets.size > 50) this.#sheets.delete(this.#sheets.keys().next().value);
    }
    return sheet;
  };

  progress = () => {
    const { looked, total, waiting, trouble } = this.#last;
    if (this.#failed) return "TensorBoard does not answer; what is shown may be old.";
    if (!looked) return "Looking for training logs …";
    return waiting ? `${count(total - waiting)} of ${plural(total, "run")} judged so far …` : trouble.join("; ") || null;
  };

  empty = () => {
    const { looked, total, trouble, places } = this.#last;
    return looked && !total ? nothingYet(trouble, places) : null;
  };

  /** One question; how long to wait for the next, in ms. */
  async ask() {
    let news;
    try {
      news = await json(`./runs?session=${this.#session}&since=${this.#since}&want=${this.#wanted.join(",")}`);
    } catch {
      const before = this.#failed;
      this.#failed = true;
      if (!before) this.#changed();
      return LATER;
    }
    if (news.session !== this.#session) this.#rows.clear();
    for (const row of news.rows) {
      if (row.gone) this.#rows.delete(row.run);
      else this.#rows.set(row.run, row);
    }
    const before = JSON.stringify([this.#failed, { ...this.#last, version: 0 }]);
    this.#failed = false;
    this.#session = news.session;
    this.#since = news.version;
    const { rows, ...rest } = news;
    this.#last = rest;
    if (news.more) return 0;
    if (rows.length || JSON.stringify([false, { ...rest, version: 0 }]) !== before) this.#changed();
    return news.waiting || !news.looked || this.rows().some((r) => r.growing) ? SOON : LATER;
  }
}

async function json(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

function nothingYet(trouble, places) {
  return el("section", { class: "empty" },
    el("h1", { tabindex: -1 }, "No training log here yet"),
    el("p", {}, "fitdoctor looked in ", places.length ? places.map((p, i) => [i ? ", " : "", el("code", {}, p)]) : "no local folder", ". It goes on looking while this tab is open."),
    trouble.map((t) => el("p", { class: "quiet" }, t)),
    el("h2", {}, "How to get something"),
    el("p", {}, "Any log will do: TensorBoard event files from a SummaryWriter, or CSV, JSON lines, W&B, MLflow and plain text logs below this folder. To have gradients, activations and updates measured as well:"),
    el("div", { class: "snippet" }, el("div", { class: "snippet-head" }, el("span", {}, "PyTorch"), copyButton("the lines that attach fitdoctor", HOW)), el("pre", {}, el("code", {}, HOW))));
}

/** TensorBoard's window, where it lets itself be seen; in a notebook it may not. */
function outside() {
  try {
    if (window.parent !== window && window.parent.location.hash !== undefined) return window.parent;
  } catch {
    // another origin
  }
  return null;
}

/** Light or dark as TensorBoard is now. */
function followTheme(outer) {
  if (!outer) return;
  const { body } = outer.document;
  const follow = () => (document.documentElement.dataset.theme = body.classList.contains("dark-mode") ? "dark" : "light");
  follow();
  new MutationObserver(follow).observe(body, { attributes: true, attributeFilter: ["class"] });
}

/** Called by TensorBoard in an empty page. */
export async function render() {
  const outer = outside();
  followTheme(outer);
  document.documentElement.lang = "en";
  const style = el("link", { rel: "stylesheet", href: "./static/style.css" });
  const place = el("main", { id: "fitdoctor" });
  await new Promise((done) => {
    style.addEventListener("load", done);
    style.addEventListener("error", done);
    document.head.append(style);
  });
  document.body.append(place);
  const runs = new Runs();
  const address = outer ? new Address(outer, "fitdoctor", "p.fitdoctor.") : new Address(window);
  let wait = 0;
  while (wait === 0) wait = await runs.ask();
  start(place, runs, address);
  for (;;) {
    await new Promise((done) => setTimeout(done, wait));
    // Hidden, with another tab in front or another of TensorBoard's: nobody looks, so nothing is asked.
    if (!document.hidden && document.documentElement.clientWidth) wait = await runs.ask();
  }
}
