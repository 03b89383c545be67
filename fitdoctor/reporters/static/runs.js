// The list of runs: counts, filters, a sortable table in pages, and a choice of runs to compare.

import { spark } from "./chart.js";
import { announce, breakable, el, prose } from "./dom.js";
import { count, length, number, plural } from "./format.js";
import { filtered, sorted } from "./order.js";
import { badge } from "./report.js";

const PAGE = 50;
const COLUMNS = [
  ["run", "Run"], ["verdict", "Verdict"], ["root", "Root cause"], ["onset", "Since"], ["confidence", "Confidence"],
  ["", "Loss"], ["train_loss", "Last train loss"], ["val_loss", "Best val loss"], ["steps", "Steps"],
];

/** The list. `context`: {state, go, link, rows, progress}; returns {node, update}. */
export function runsView(context) {
  const search = el("input", { type: "search", id: "fd-q", placeholder: "name, root cause, optimizer …", value: context.state.q ?? "", autocomplete: "off" });
  const root = el("select", { id: "fd-root" });
  const title = el("h1", { id: "fd-title", tabindex: -1 });
  const verdicts = el("div", { class: "verdicts", role: "group", "aria-label": "Show runs by verdict" });
  const told = el("p", { class: "quiet", role: "status" });
  const compare = el("button", { type: "button", class: "primary", onclick: () => context.go({ view: "compare" }) });
  const head = el("tr");
  const body = el("tbody");
  const pager = el("nav", { class: "pager", "aria-label": "Pages of the list" });
  const progress = el("p", { class: "progress quiet" });

  let typing = null;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => context.go({ q: search.value || null, page: null }, { replace: true }), 120);
  });
  root.addEventListener("change", () => context.go({ root: root.value || null, page: null }));

  const update = () => {
    const { state } = context;
    const rows = context.rows();
    if (document.activeElement !== search) search.value = state.q ?? "";
    title.replaceChildren(...headline(rows));
    progress.replaceChildren(context.progress() ?? "");
    fillVerdicts(verdicts, rows, context);
    fillRoots(root, rows, state.root);
    const order = state.sort ?? "verdict";
    const found = sorted(filtered(rows, state), order);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const page = Math.min(pages, Math.max(1, Number(state.page) || 1));
    const shown = found.slice((page - 1) * PAGE, page * PAGE);
    const shownOf = found.length === rows.length ? plural(rows.length, "run") : `${count(found.length)} of ${plural(rows.length, "run")}`;
    if (told.textContent !== shownOf) told.textContent = shownOf; // a screen reader says it again otherwise
    fillHead(head, order, context);
    keepFocus(body, () => body.replaceChildren(...(shown.length ? shown.map((r) => runLine(r, context)) : [nothing(rows, context)])));
    fillPager(pager, page, pages, context);
    const chosen = state.pick ?? [];
    compare.textContent = chosen.length > 1 ? `Compare ${plural(chosen.length, "run")}` : "Compare: choose two runs";
    compare.disabled = chosen.length < 2;
    context.visible?.(shown);
  };

  const node = el("section", { class: "runs", "aria-labelledby": "fd-title" },
    title,
    verdicts,
    progress,
    el("div", { class: "filters" },
      el("label", { for: "fd-q" }, "Filter"), search,
      el("label", { for: "fd-root" }, "Root cause"), root,
      el("span", { class: "grow" }), told, compare),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of runs" },
      el("table", { class: "run-table" }, el("caption", { class: "offscreen" }, "Runs with verdict and root cause"), el("thead", {}, head), body)),
    pager);
  update();
  return { node, update };
}

function headline(rows) {
  const sick = rows.filter((r) => r.verdict === "sick").length;
  const judged = rows.filter((r) => r.verdict).length;
  if (!judged) return [`${plural(rows.length, "run")} found`];
  return [`${count(sick)} of ${plural(judged, "run")} ${sick === 1 ? "is" : "are"} sick.`];
}

function fillVerdicts(box, rows, context) {
  const buttons = ["sick", "healthy", "cannot judge"].map((verdict) => {
    const n = rows.filter((r) => r.verdict === verdict).length;
    const on = context.state.verdict === verdict;
    return n || on ? el("button", {
      type: "button", class: `badge ${verdict === "cannot judge" ? "unknown" : verdict}`, "aria-pressed": String(on),
      onclick: () => context.go({ verdict: on ? null : verdict, page: null }),
    }, `${count(n)} ${verdict === "cannot judge" ? "cannot be judged" : verdict}`) : "";
  });
  keepFocus(box, () => box.replaceChildren(...buttons));
}

function fillRoots(select, rows, chosen) {
  const counts = new Map();
  for (const r of rows) if (r.root) counts.set(r.root, (counts.get(r.root) ?? 0) + 1);
  if (chosen && !counts.has(chosen)) counts.set(chosen, 0);
  const options = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const text = JSON.stringify([options, chosen]);
  if (select.dataset.filled === text) return; // an open list must not be closed by an update
  select.dataset.filled = text;
  select.replaceChildren(el("option", { value: "" }, "any"),
    ...options.map(([name, n]) => el("option", { value: name, selected: name === chosen }, `${name} (${n})`)));
}

/** Buttons in the head of a table that sort it. */
export function fillHead(head, order, context, columns = [["pick", ""], ...COLUMNS], field = "sort") {
  const cells = columns.map(([column, label]) => {
    if (column === "pick") return el("th", { class: "pick" }, el("span", { class: "offscreen" }, "Compare"));
    if (!column) return el("th", { scope: "col", class: "spark-cell" }, label);
    const up = order === column;
    const down = order === `-${column}`;
    return el("th", { scope: "col", class: column, "aria-sort": up ? "ascending" : down ? "descending" : false },
      el("button", { type: "button", onclick: () => {
        context.go({ [field]: up ? `-${column}` : column, page: null });
        announce(`Sorted by ${label}, ${up ? "descending" : "ascending"}`);
      } }, label, el("span", { class: "arrow", "aria-hidden": "true" }, up ? " ▲" : down ? " ▼" : "")));
  });
  keepFocus(head, () => head.replaceChildren(...cells));
}

function runLine(row, context) {
  const picked = (context.state.pick ?? []).includes(row.run);
  const box = el("input", { type: "checkbox", "aria-label": `Compare ${row.run}`, onchange: () => {
    const rest = (context.state.pick ?? []).filter((r) => r !== row.run);
    context.go({ pick: picked ? rest : [...rest, row.run] }, { replace: true });
  } });
  box.checked = picked;
  return el("tr", { class: row.verdict ? "" : "waiting" },
    el("td", { class: "pick" }, box),
    el("th", { scope: "row", class: "run" }, context.link({ run: row.run }, breakable(row.run)),
      row.growing ? el("span", { class: "growing", title: "still being written" }, " growing") : null),
    el("td", { class: "verdict" }, row.verdict ? [badge(row.verdict, row.severity), row.severity ? el("span", { class: `severity ${row.severity}` }, row.severity) : null] : el("span", { class: "quiet" }, row.failed ? "failed" : "waiting")),
    el("td", { class: "root" }, row.root ? el("b", {}, row.root) : null, row.root ? el("div", { class: "quiet" }, prose(row.reason ?? "")) : row.failed ? el("div", { class: "quiet" }, row.failed) : null),
    el("td", { class: "onset" }, row.onset_words),
    el("td", { class: "confidence" }, row.confidence),
    el("td", { class: "spark-cell" }, row.spark ? spark(row) : null),
    el("td", { class: "number train_loss" }, number(row.train_loss)),
    el("td", { class: "number val_loss" }, number(row.val_loss)),
    el("td", { class: "number steps" }, length(row)));
}

function nothing(rows, context) {
  return el("tr", {}, el("td", { colspan: COLUMNS.length + 1, class: "quiet" },
    rows.length ? ["No run fits. ", el("button", { type: "button", onclick: () => context.go({ q: null, verdict: null, root: null, page: null }) }, "Show all")] : "No run yet."));
}

function fillPager(pager, page, pages, context) {
  if (pages < 2) return pager.replaceChildren();
  const button = (label, to) => el("button", { type: "button", disabled: to < 1 || to > pages, onclick: () => {
    context.go({ page: to === 1 ? null : String(to) });
    pager.closest("section")?.querySelector("h1")?.scrollIntoView?.();
  } }, label);
  keepFocus(pager, () => pager.replaceChildren(button("First", page > 1 ? 1 : 0), button("Previous", page - 1), el("span", {}, `Page ${count(page)} of ${count(pages)}`), button("Next", page + 1), button("Last", page < pages ? pages : 0)));
}

/** Do something that replaces the children of a node, and give the focus back to the one of the same name. */
export function keepFocus(node, change) {
  const controls = () => [...node.querySelectorAll("a, button, input, select")];
  const name = (control) => control.getAttribute("aria-label") ?? control.textContent.replace(/[ ▲▼]+$/, "");
  const had = node.contains(document.activeElement) ? document.activeElement : null;
  const place = had ? controls().indexOf(had) : -1;
  change();
  if (!had) return;
  const now = controls();
  (now.find((c) => c.tagName === had.tagName && name(c) === name(had)) ?? now[place])?.focus({ preventScroll: true });
}
