// The comparison of chosen runs: one row per run, and their curves in common charts.

import { chart } from "./chart.js";
import { breakable, el } from "./dom.js";
import { length, number, plural } from "./format.js";
import { sorted } from "./order.js";
import { badge } from "./report.js";
import { fillHead } from "./runs.js";

const COMPARED = [
  ["run", "Run"], ["verdict", "Verdict"], ["root", "Root cause"], ["onset", "Since"], ["steps", "Steps"], ["train_loss", "Last train loss"],
  ["val_loss", "Best val loss"], ["accuracy", "Best accuracy"], ["lr", "Highest LR"], ["grad_norm", "Median gradient norm"],
  ["optimizer", "Optimizer"], ["batch_size", "Batch size"], ["schedule", "Schedule"],
];
const MOST_CURVES = 8;

/** The comparison. `context`: {state, go, link, back, copyLink, rows, sheets}; returns {node, update}. */
export function compareView(context) {
  const head = el("tr");
  const body = el("tbody");
  const charts = el("div", { class: "panels wide" });
  const title = el("h1", { id: "fd-title", tabindex: -1 });
  const node = el("section", { class: "compare", "aria-labelledby": "fd-title" },
    el("div", { class: "bar" }, context.back, el("span", { class: "grow" }), context.copyLink),
    title,
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of the chosen runs" },
      el("table", { class: "compare-table" }, el("caption", { class: "offscreen" }, "Chosen runs side by side"), el("thead", {}, head), body)),
    charts);
  let drawn = "";
  const update = async () => {
    const picked = new Set(context.state.pick ?? []);
    const order = context.state.order ?? "verdict";
    const rows = sorted(context.rows().filter((r) => picked.has(r.run)), order);
    title.textContent = `${plural(rows.length, "run")} side by side`;
    // A column that no run fills would only push the others aside.
    const columns = COMPARED.filter(([name]) => rows.some((r) => r[name] !== null && r[name] !== undefined && r[name] !== ""));
    fillHead(head, order, context, columns, "order");
    body.replaceChildren(...rows.map((r) => comparedLine(r, columns, context)));
    const names = [...picked].slice(0, MOST_CURVES);
    const sheets = (await Promise.all(names.map((n) => context.sheet(n)))).filter(Boolean);
    const now = JSON.stringify(sheets.map((s) => [s.row.run, s.row.version ?? 0]));
    if (now === drawn) return;
    drawn = now;
    charts.replaceChildren(...common(sheets), picked.size > MOST_CURVES ? el("p", { class: "quiet" }, `Curves of the first ${MOST_CURVES} runs are drawn.`) : "");
  };
  update();
  return { node, update };
}

function comparedLine(row, columns, context) {
  const special = {
    run: () => el("th", { scope: "row", class: "run" }, context.link({ run: row.run, view: null }, breakable(row.run))),
    verdict: () => el("td", {}, row.verdict ? badge(row.verdict, row.severity) : "waiting"),
    onset: () => el("td", {}, row.onset_words),
    steps: () => el("td", { class: "number" }, length(row)),
    schedule: () => el("td", { class: "schedule" }, row.schedule ?? ""),
    root: () => el("td", {}, row.root ?? ""),
    optimizer: () => el("td", {}, row.optimizer ?? ""),
  };
  return el("tr", {}, columns.map(([name]) => (special[name] ?? (() => el("td", { class: "number" }, number(row[name]))))()));
}

/** One chart per curve that two or more of the runs have. Runs that count epochs are not drawn over steps. */
function common(sheets) {
  const curves = new Map();
  sheets.forEach((sheet, hue) => {
    const own = new Set();
    for (const panel of sheet.panels) {
      for (const c of panel.curves) {
        if (own.has(c.label)) continue;
        own.add(c.label);
        const { unit } = sheet.row;
        const entry = curves.get(`${unit} ${c.label}`) ?? { unit, log: false, curves: [] };
        entry.log ||= panel.log;
        entry.title ??= c.label.includes(" ") ? c.label : panel.title;
        entry.curves.push({ ...c, label: sheet.row.run, hue });
        curves.set(`${unit} ${c.label}`, entry);
      }
    }
  });
  const units = new Set(sheets.map((s) => s.row.unit));
  const drawn = [...curves].filter(([, entry]) => entry.curves.length > 1);
  const alone = sheets.filter((s) => !drawn.some(([, entry]) => entry.curves.some((c) => c.label === s.row.run)));
  const charts = drawn
    .map(([key, entry]) => {
      const ends = entry.curves.flatMap((c) => [c.x[0], c.x[c.x.length - 1]]);
      const title = units.size > 1 ? `${entry.title} by ${entry.unit}` : entry.title;
      return chart({ title, curves: entry.curves, marks: [], log: entry.log },
        { unit: entry.unit, key: `compare/${key}`, height: 200, span: [Math.min(...ends), Math.max(...ends)] });
    });
  const told = alone.length && sheets.length > 1
    ? [el("p", { class: "quiet" }, "Not drawn, for want of a curve in common over the same unit: ", alone.map((s, i) => [i ? ", " : "", breakable(s.row.run), ` (by ${s.row.unit})`]))] : [];
  return [...charts, ...told];
}
