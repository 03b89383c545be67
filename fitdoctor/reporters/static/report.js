// One run: the verdict in a sentence, its evidence beside it, what to do, and what was not judged.

import { chart } from "./chart.js";
import { breakable, copyButton, el, fold, prose, sentence } from "./dom.js";
import { plural } from "./format.js";
import { heatMaps } from "./heatmap.js";

const STATES = { sick: "sick", healthy: "healthy", "cannot judge": "unknown" };

const MOST_REMEDIES = 3;

/** A label for a verdict, in colour and in words. */
export function badge(verdict, severity) {
  const state = STATES[verdict] ?? "waiting";
  return el("span", { class: `badge ${state} ${severity ?? ""}` }, verdict);
}

/** The page of one run. `context`: {state, go, back, copyLink}. */
export function runView(sheet, context) {
  const { row } = sheet;
  const about = { unit: row.unit, perEpoch: sheet.per_epoch, key: row.run, span: spanOf(sheet.panels), shown: new Set(sheet.panels.flatMap((p) => p.curves.map((c) => c.label))) };
  const [verdict, reason] = sheet.headline;
  return el("article", { class: "run", "aria-labelledby": "fd-title" },
    el("header", {},
      el("div", { class: "bar" },
        context.back,
        el("span", { class: "grow" }),
        row.growing ? el("span", { class: "growing" }, "still being written") : null,
        context.copyLink),
      el("p", { class: "name" }, badge(row.verdict, row.severity), " ", breakable(row.run)),
      el("h1", { id: "fd-title", tabindex: -1 },
        row.verdict === "sick" ? [el("span", { class: "root" }, row.root), ": ", prose(reason), "."] : [`This run ${verdict}${row.growing && row.verdict === "healthy" ? " so far" : ""}`, reason ? [": ", prose(reason)] : "", "."]),
      el("p", { class: "facts" }, sheet.facts)),
    el("div", { class: sheet.diagnoses.length || sheet.notes.length || row.verdict === "cannot judge" ? "columns" : "columns alone" },
      el("div", { class: "findings" },
        row.growing ? el("p", { class: "quiet" }, "The log is still growing: rules that need the end of a run wait until it has been quiet for a minute.") : null,
        sheet.diagnoses.map((d, i) => diagnosis(d, i, sheet, about)),
        missing(sheet),
        notes(sheet, about)),
      el("section", { class: "panels", "aria-label": "Curves of the run" },
        sheet.panels.map((p) => chart(p, { ...about, key: `${row.run}/${p.title}`, height: p.title === "loss" ? 210 : 140 })))),
    sheet.layers.length ? heatMaps(sheet.layers, about, context.state.layer, (layer) => context.go({ layer })) : null,
    smallPrint(sheet, row));
}

function spanOf(panels) {
  const steps = panels.flatMap((p) => p.curves.flatMap((c) => [c.x[0], c.x[c.x.length - 1]]));
  return steps.length ? [Math.min(...steps), Math.max(...steps)] : undefined;
}

function diagnosis(d, place, sheet, about) {
  const key = `${about.key}/${d.rule}/${place}`;
  return el("section", { class: `diagnosis ${d.severity}`, "aria-labelledby": `fd-d${place}` },
    el("h2", { id: `fd-d${place}` },
      el("span", { class: "kicker" }, place ? "And also" : "Root cause"), " ", d.rule),
    place ? el("p", {}, sentence(d.message)) : null,
    standing(d),
    el("h3", {}, "What was measured"),
    d.evidence.map((e, i) => evidence(e, { ...about, key: `${key}/${i}` })),
    d.could_be.length ? el("p", {}, el("b", {}, "It could also be: "), prose(d.could_be.join("; ")), ".") : null,
    d.settle_with ? el("p", {}, el("b", {}, "To settle it: "), prose(d.settle_with), ".") : null,
    d.explains.length ? [
      el("h3", {}, "What it explains"),
      el("ul", { class: "plain" }, d.explains.map((f) => el("li", {}, el("b", {}, f.rule), ": ", prose(f.message), el("span", { class: "quiet" }, ` · ${f.since}`))))] : null,
    d.remedies.length ? [
      el("h3", {}, "What to do"),
      remedies(d.remedies, key)] : null,
    d.ruled_out.length ? fold(`${key}/against`, `What does not suit this run: ${d.ruled_out.length}, and why`, () =>
      el("ul", { class: "plain" }, d.ruled_out.map((r) => el("li", {}, sentence(r))))) : null);
}

function standing(f) {
  return el("p", { class: "standing" },
    el("span", { class: `severity ${f.severity}` }, f.severity),
    el("span", {}, `${f.confidence} confidence`),
    el("span", {}, f.since),
    f.code ? el("span", { class: "code" }, f.code) : null);
}

function evidence(e, about) {
  const drawing = e.curves.length ? chart({ title: e.label, curves: e.curves, marks: e.marks, log: e.log }, { ...about, span: undefined, height: 100, noTable: true, bare: true }) : null;
  return el("div", { class: "evidence" },
    el("dl", {},
      el("dt", {}, e.label),
      e.observed ? el("dd", {}, prose(e.observed)) : null,
      e.expected ? [el("dt", { class: "quiet" }, "expected"), el("dd", { class: "quiet" }, prose(e.expected))] : null),
    // What the panels beside do not show is shown here; the rest can be unfolded.
    drawing && !about.shown.has(e.label) ? drawing : drawing ? fold(`${about.key}/chart`, `Chart of ${e.label}`, () => drawing, true) : null);
}

/** The best few in full; the rest is at hand. */
function remedies(all, key) {
  const items = (from, to) => all.slice(from, to).map((r, i) => remedy(r, from + i, key));
  const first = all.length > MOST_REMEDIES + 1 ? MOST_REMEDIES : all.length; // a fold for one is no gain
  return [
    el("ol", { class: "remedies" }, items(0, first)),
    all.length > first ? fold(`${key}/more`, `${all.length - first} more things to try`, () => el("ol", { class: "remedies more", start: first + 1 }, items(first))) : null];
}

function remedy(r, place, key, heading = "h4") {
  const details = [["Why", r.why], ["Unless", r.unless], ["It worked if", r.confirm]].filter(([, text]) => text);
  const codes = r.codes.map(([name, text]) => el("div", { class: "snippet" },
    el("div", { class: "snippet-head" }, el("span", {}, name), copyButton(`${name} code of: ${r.title}`, text, "Copy")),
    el("pre", { tabindex: 0, "aria-label": `${name} code` }, el("code", {}, text))));
  return el("li", { class: "remedy" },
    el(heading, {}, prose(r.title)),
    el("dl", {}, details.map(([label, text]) => [el("dt", {}, label), el("dd", {}, sentence(text))])),
    codes.length > 1 && place > 0 ? fold(`${key}/code/${place}`, "Code", () => codes) : codes);
}

function missing(sheet) {
  if (sheet.row.verdict !== "cannot judge") return null;
  return el("section", { class: "diagnosis unknown" },
    el("h2", {}, "What is missing"),
    sheet.missing.length
      ? el("ul", {}, sheet.missing.map(([why, rules]) => el("li", {}, sentence(why), el("span", { class: "quiet" }, ` Not judged for it: ${rules.join(", ")}.`))))
      : el("p", {}, "No rule that judges learning could run."));
}

function notes(sheet, about) {
  if (!sheet.notes.length) return null;
  return el("section", { class: "notes" },
    el("h2", {}, "Worth knowing"),
    sheet.notes.map((n, i) => el("div", { class: "note" },
      el("p", {}, el("b", {}, n.rule), ": ", prose(n.message), el("span", { class: "quiet" }, ` · ${n.since}`)),
      n.evidence.length || n.remedies.length ? fold(`${about.key}/note/${n.rule}`, "More", () => [
        n.evidence.map((e, k) => evidence(e, { ...about, key: `${about.key}/note/${i}/${k}` })),
        n.remedies.length ? el("ol", { class: "remedies" }, n.remedies.map((r, k) => remedy(r, k, `${about.key}/note/${i}`, "h3"))) : null]) : null)));
}

function smallPrint(sheet, row) {
  const judged = `${plural(sheet.clean.length, "rule")} looked and found nothing`;
  const skipped = sheet.skipped.reduce((n, [, rules]) => n + rules.length, 0);
  return el("section", { class: "small-print", "aria-label": "What was judged, and the log" },
    sheet.crashed.length ? el("div", { class: "crashed" },
      el("h2", {}, `${plural(sheet.crashed.length, "rule")} crashed`),
      el("ul", {}, sheet.crashed.map(([rule, code, why]) => el("li", {}, el("b", {}, `${rule} (${code})`), ": ", why))),
      el("p", {}, "That is a bug in fitdoctor, not in your run: please report it with the log.")) : null,
    skipped ? fold(`${row.run}/skipped`, `Not judged: ${plural(skipped, "rule")}, and why`, () =>
      el("ul", {}, sheet.skipped.map(([why, rules]) => el("li", {}, sentence(why), el("span", { class: "quiet" }, ` ${rules.join(", ")}`))))) : null,
    sheet.clean.length ? fold(`${row.run}/clean`, judged, () => el("p", {}, sheet.clean.join(", "), "."), true) : null,
    sheet.ignored.length ? fold(`${row.run}/ignored`, "Switched off", () =>
      el("ul", {}, sheet.ignored.map(([why, rules]) => el("li", {}, sentence(why), el("span", { class: "quiet" }, ` ${rules.join(", ")}`))))) : null,
    fold(`${row.run}/log`, `About the log${sheet.log.length + sheet.unmapped.length ? ` (${sheet.log.length + sheet.unmapped.length})` : ""}`, () => [
      el("p", {}, `Format: ${row.source}. `, sheet.path ? ["Read from ", el("code", {}, sheet.path), "."] : null),
      sheet.log.length ? el("ul", {}, sheet.log.map((text) => el("li", {}, prose(text)))) : null,
      sheet.unmapped.length ? el("p", {}, "Tags not understood and left out: ",
        sheet.unmapped.slice(0, 200).map((t, i) => [i ? ", " : "", el("code", {}, t)]),
        sheet.unmapped.length > 200 ? ` and ${plural(sheet.unmapped.length - 200, "more tag")}` : "",
        ". `fitdoctor analyze --map TAG=quantity` says what one means.") : null]),
    el("p", { class: "quiet" }, sheet.summary, sheet.fitdoctor ? ` · fitdoctor ${sheet.fitdoctor}` : ""));
}
