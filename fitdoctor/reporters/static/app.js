// What is shown when: the list of runs, one run, or a comparison.

import { compareView } from "./compare.js";
import { copyButton, el } from "./dom.js";
import { runView } from "./report.js";
import { runsView } from "./runs.js";

const PAPER = 660; // px between the margins of A4 or letter; charts are drawn for it, so that their labels keep their size

/**
 * Show the data of a source in a place, and what is asked for in the address.
 *
 * A source has rows() -> rows, sheet(run) -> promise of a sheet or null, alone -> whether it holds one run only,
 * progress() -> text or null, empty() -> element or null, and listen(changed).
 */
export function start(place, source, address) {
  let state = address.read();
  let view = null;
  let shownRun = null;

  const go = (changes, { replace = false } = {}) => {
    const before = kind(state);
    state = { ...state, ...changes };
    for (const key of Object.keys(state)) if (state[key] === null || state[key] === undefined) delete state[key];
    address.write(state, replace);
    context.state = state;
    show(kind(state) !== before);
  };
  const link = (changes, ...content) => {
    const target = { ...state, ...changes };
    return el("a", {
      href: address.href(target),
      target: "_top",
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // a new tab is the browser's business
        event.preventDefault();
        go(changes);
        window.scrollTo(0, 0);
      },
    }, ...content);
  };
  const context = {
    state,
    go,
    link,
    rows: source.rows,
    sheet: source.sheet,
    progress: source.progress,
    visible: source.visible,
    get back() {
      return source.alone() ? null : link({ run: null, view: null, layer: null }, "← All runs");
    },
    get copyLink() {
      return copyButton("link to this view", () => address.href(state), "Copy link");
    },
  };
  const kind = (s) => (s.view === "compare" && s.pick?.length ? "compare" : wanted(s) ? `run ${wanted(s)}` : "runs");
  const wanted = (s) => s.run ?? (source.alone() ? source.rows()[0].run : null);

  const showRun = async (name, moved) => {
    const sheet = await source.sheet(name);
    if (wanted(state) !== name || kind(state) === "compare") return; // somebody has moved on meanwhile
    document.title = `${name} · fitdoctor`;
    const now = JSON.stringify([name, state.layer, sheet?.row.version ?? 0, Boolean(sheet)]);
    if (now === shownRun && place.childElementCount) return;
    shownRun = now;
    const top = window.scrollY;
    const focused = document.activeElement?.id;
    place.replaceChildren(sheet ? runView(sheet, context) : unknown(name, source, context));
    if (moved) focusTitle(place);
    else {
      window.scrollTo(0, top);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
  };
  const show = (moved) => {
    const empty = source.empty();
    const what = empty ? "empty" : kind(state);
    if (what.startsWith("run ")) {
      view = null;
      showRun(wanted(state), moved);
      return;
    }
    shownRun = null;
    document.title = "fitdoctor";
    if (empty) {
      view = null;
      place.replaceChildren(empty);
      return;
    }
    if (view?.kind !== what) {
      view = { kind: what, ...(what === "compare" ? compareView(context) : runsView(context)) };
      place.replaceChildren(view.node);
      if (moved) focusTitle(place);
    } else view.update();
  };

  address.listen(() => {
    if (!address.ours) return;
    const before = kind(state);
    state = address.read();
    context.state = state;
    show(kind(state) !== before);
  });
  source.listen(() => show(false));
  window.addEventListener("beforeprint", () => {
    place.querySelectorAll("details.fold:not(.aside)").forEach((d) => {
      d.unfold();
      d.open = true;
    });
    place.querySelectorAll(".plot").forEach((p) => p.redraw(p.closest(".panels") ? PAPER / 2 : PAPER));
  });
  window.addEventListener("afterprint", () => place.querySelectorAll(".plot").forEach((p) => p.clientWidth && p.redraw(p.clientWidth)));
  show(false);
}

function focusTitle(place) {
  place.querySelector("h1")?.focus({ preventScroll: true });
}

function unknown(name, source, context) {
  const row = source.rows().find((r) => r.run === name);
  const [title, text] = !row ? ["No such run", " is not among the runs here."]
    : row.failed ? ["This log could not be judged", `: ${row.failed}`] : ["Not judged yet", " is being read."];
  return el("section", {},
    el("div", { class: "bar" }, context.back),
    el("h1", { tabindex: -1 }, title),
    el("p", {}, el("bdi", {}, name), text));
}
