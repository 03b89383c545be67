// A chart of curves over steps, drawn as SVG: crosshair by pointer or arrow keys, values as a table.

import { el, fold, svg, table } from "./dom.js";
import { count, moment, number } from "./format.js";
import { lastUpTo, makeScale, tickLabels, ticks, values } from "./scale.js";

const LEFT = 52;
const RIGHT = 14;
const BOTTOM = 20;
const LINE = 13; // height of a line of labels
const MOST_LINES = 4; // of labels of marks; more would leave no room for curves
const STRIP = 14; // height of the strip that shows what is not finite

/**
 * A figure of one panel: {title, curves: [{label, split, x, y}], marks: [[step, label]], log}.
 * `about`: {unit, perEpoch, key, height, span, bare, noTable}: span is the first and last step of the axis, and a
 * bare chart stands where its title has been said.
 */
export function chart(panel, about) {
  const curves = panel.curves.map((c, i) => ({ ...c, y: values(c), style: styleOf(panel.curves, i) }));
  const steps = [...new Set(curves.flatMap((c) => c.x))].sort((a, b) => a - b);
  const span = about.span ?? [steps[0], steps[steps.length - 1]];
  const readout = el("div", { class: "readout", "aria-hidden": "true", hidden: true });
  const plot = el("div", {
    class: "plot",
    tabindex: 0,
    role: "slider",
    "aria-label": `${panel.title} over ${about.unit}s; arrow keys read the values`,
    "aria-orientation": "horizontal",
    "aria-valuemin": 0,
    "aria-valuemax": Math.max(0, steps.length - 1),
    "aria-valuenow": 0,
    "aria-valuetext": described(panel, curves, about),
  });
  let drawn = null;
  const draw = (width) => {
    drawn = picture(panel, curves, span, Math.max(240, Math.round(width)), about.height ?? 170, about.unit);
    plot.replaceChildren(drawn.node, readout);
  };
  draw(640);
  watchWidth(plot, draw);
  plot.redraw = draw; // for paper, whose width no observer tells in time

  const pointAt = (index) => {
    const i = Math.min(steps.length - 1, Math.max(0, index));
    const at = steps[i];
    const seen = curves.map((c) => nearest(c, at, span)).filter(Boolean);
    const text = [moment(at, about.unit, about.perEpoch), ...seen.map((p) => `${p.label} ${number(p.v, 4)}`)];
    readout.replaceChildren(el("div", {}, text[0]), ...seen.map((p) =>
      el("div", { class: "key" }, el("span", { class: `swatch ${p.style}` }), el("span", {}, p.label), el("b", {}, number(p.v, 4)))));
    readout.hidden = false;
    // Beside the crosshair, on the side that has room.
    const left = (100 * drawn.x(at)) / drawn.width;
    readout.style.left = left <= 50 ? `calc(${left}% + 10px)` : "";
    readout.style.right = left > 50 ? `calc(${100 - left}% + 10px)` : "";
    plot.setAttribute("aria-valuenow", i);
    plot.setAttribute("aria-valuetext", text.join(", "));
    drawn.point(at, seen);
    return i;
  };
  let current = -1;
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const at = drawn.stepAt(((event.clientX - box.left) / box.width) * drawn.width);
    const k = lastUpTo(steps, at);
    const next = k + 1 < steps.length && (k < 0 || steps[k + 1] - at < at - steps[k]) ? k + 1 : k;
    current = pointAt(next);
  });
  const away = () => {
    drawn.clear();
    readout.hidden = true;
  };
  plot.addEventListener("pointerleave", () => document.activeElement === plot || away());
  plot.addEventListener("blur", away);
  plot.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(steps.length / 10));
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -far, PageUp: far };
    let next = null;
    if (event.key in moves) next = current + moves[event.key];
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = steps.length - 1;
    else if (event.key === "Escape") away();
    if (next === null) return;
    event.preventDefault();
    current = pointAt(next);
  });
  return el("figure", { class: "chart" },
    about.bare ? null : el("figcaption", {},
      el("span", { class: "chart-title" }, panel.title, makeScale(curves.flatMap((c) => c.y), panel.log).log ? el("small", {}, " log scale") : null),
      curves.length > 1 || curves[0]?.label.includes(" ") ? legend(curves) : null),
    plot,
    about.noTable ? null : fold(`${about.key}/values`, "Values as a table", () => valueTable(panel, curves, steps, about), true));
}

/** The point of a curve nearest to a step, if the curve is there at all; named with its own step where that differs. */
function nearest(curve, at, [first, last]) {
  const { x, y, label, style } = curve;
  const k = lastUpTo(x, at);
  const i = k < 0 || (k + 1 < x.length && x[k + 1] - at < at - x[k]) ? k + 1 : k;
  const off = Math.abs(x[i] - at);
  const inside = k >= 0 && k + 1 < x.length;
  if (!inside && off > (last - first) / 20) return null;
  return { s: x[i], v: y[i], style, label: off > (last - first) / 100 ? `${label} at ${count(x[i])}` : label };
}

function legend(curves) {
  return el("span", { class: "legend" },
    curves.map((c) => el("span", { class: "key" }, el("span", { class: `swatch ${c.style}`, "aria-hidden": "true" }), c.label)));
}

function styleOf(curves, i) {
  if (curves[i].hue !== undefined) return `hue${curves[i].hue % 8}`;
  const split = curves[i].split;
  const before = curves.slice(0, i).filter((c) => c.split === split).length;
  return `${split === "val" || split === "test" ? split : "train"}${before ? " second" : ""}`;
}

function described(panel, curves, about) {
  const parts = curves.map((c) => {
    const finite = c.y.filter((v) => Number.isFinite(v));
    const bad = c.y.length - finite.length;
    const range = finite.length ? `from ${number(c.y[0])} to ${number(c.y[c.y.length - 1])}, lowest ${number(least(finite))}, highest ${number(-least(finite.map((v) => -v)))}` : "no finite value";
    return `${c.label} ${range}${bad ? `, ${bad} values not finite` : ""}`;
  });
  const marks = panel.marks.map(([s, label]) => `${label} at ${moment(s, about.unit, about.perEpoch)}`);
  return [...parts, ...marks].join("; ");
}

function least(numbers) {
  return numbers.reduce((a, b) => (b < a ? b : a), Infinity);
}

function valueTable(panel, curves, steps, about) {
  const rows = steps.map((s) => [
    count(s),
    ...curves.map((c) => {
      const k = lastUpTo(c.x, s);
      return k >= 0 && c.x[k] === s ? number(c.y[k]) : "";
    }),
  ]);
  return table(`${panel.title} by ${about.unit}`, [about.unit, ...curves.map((c) => c.label)], rows);
}

function picture(panel, curves, [first, last], width, height, unit) {
  const scale = makeScale(curves.flatMap((c) => c.y), panel.log);
  const across = width - LEFT - RIGHT;
  const x = (s) => LEFT + (last > first ? (Math.min(Math.max(s, first), last) - first) / (last - first) : 0.5) * across;
  const odd = curves.findLast((c) => c.y.some((v) => !Number.isFinite(v))); // one label will do for all
  const labels = placed(panel.marks, x, width);
  // Above the curves, so that nothing is drawn over anything: the labels of marks, then what is not finite.
  const strip = 4 + LINE * labels.lines;
  const top = strip + (odd ? STRIP : 4);
  const down = height - top - BOTTOM;
  const y = (v) => top + (1 - (0.03 + 0.94 * scale.place(v))) * down;
  const over = svg("g", { class: "crosshair" });
  const found = ticks(scale, down < 90 ? 2 : 3);
  const told = tickLabels(found);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" },
    found.map((v, i) => svg("g", { class: "tick" },
      svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v) }),
      svg("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, told[i]))),
    stepTicks(first, last, across).map((s, i) => {
      const label = i ? count(s) : `${unit} ${count(s)}`;
      return svg("text", { class: "step", ...anchored(x(s), label, width), y: height - 5 }, label);
    }),
    labels.marks.map((m) => markOf(m, strip, height)),
    curves.map((c) => lineOf(c, x, y, strip + STRIP / 2, c === odd)),
    over);
  return {
    node,
    width,
    x,
    stepAt: (px) => first + ((px - LEFT) / across) * (last - first),
    clear: () => over.replaceChildren(),
    point: (at, seen) => over.replaceChildren(
      svg("line", { x1: x(at), x2: x(at), y1: strip, y2: height - BOTTOM }),
      ...seen.filter((p) => Number.isFinite(p.v)).map((p) => svg("circle", { class: p.style, cx: x(p.s), cy: y(p.v), r: 3.5 }))),
  };
}

/** Where a label below the axis stands: centred, but never beyond the edge. */
function anchored(px, label, width) {
  return px + label.length * 3.3 > width ? { x: width - 1, "text-anchor": "end" } : { x: px, "text-anchor": "middle" };
}

function stepTicks(first, last, across) {
  const scale = { low: first, high: last, log: false };
  return ticks(scale, Math.max(2, Math.round(across / 110))).filter((s) => Number.isInteger(s));
}

function lineOf(curve, x, y, badAt, named) {
  let path = "";
  let pen = false;
  let run = 0;
  const dots = [];
  const bad = [];
  curve.y.forEach((v, i) => {
    const px = x(curve.x[i]).toFixed(1);
    if (!Number.isFinite(v)) {
      pen = false;
      bad.push(i);
      return;
    }
    const py = y(v).toFixed(1);
    path += `${pen ? "L" : "M"}${px} ${py}`;
    run = pen ? run + 1 : 1;
    pen = true;
    const alone = run === 1 && !Number.isFinite(curve.y[i + 1]);
    if (alone || curve.y.length <= 12) dots.push(svg("circle", { class: `dot ${curve.style}`, cx: px, cy: py, r: 2.5 }));
  });
  return svg("g", {}, svg("path", { class: `curve ${curve.style}`, d: path }), dots, stretches(bad).map(([a, b], i) => notFinite(x(curve.x[a]), x(curve.x[b]), badAt, named && i === 0, curve.style)));
}

/** First and last of each stretch of consecutive indices. */
function stretches(indices) {
  const out = [];
  for (const i of indices) {
    const last = out[out.length - 1];
    if (last && last[1] === i - 1) last[1] = i;
    else out.push([i, i]);
  }
  return out;
}

/** What was not finite, above the curve: a cross, or a bar with one at its beginning. */
function notFinite(from, to, y, named, style = "") {
  const told = named && to - from > 90;
  return svg("g", { class: `bad ${style.startsWith("hue") ? style : ""}` }, // whose it is, among several runs
    svg("text", { x: from, y: y + 4.5, "text-anchor": "middle" }, "×"),
    to - from > 5 ? svg("line", { x1: from, x2: to, y1: y, y2: y }) : null,
    told ? svg("text", { class: "bad-label", x: to, y: y + 4, "text-anchor": "end" }, "not finite") : null);
}

/** Where the labels of marks stand: to the side that has room, and below another that is in the way. */
function placed(marks, x, width) {
  const taken = [];
  const said = new Set();
  const out = marks.map(([step, label]) => {
    const px = x(step);
    if (said.has(label)) return { px, label: "", left: false, line: 0 }; // the third of a kind needs no name
    said.add(label);
    const length = label.length * 6.2 + 8;
    const left = px + length > width && px - length > 0;
    const from = left ? px - length : px;
    let line = 0;
    while (taken.some((t) => t.line === line && from < t.to && from + length > t.from)) line++;
    taken.push({ line, from, to: from + length });
    return { px, label, left, line };
  });
  const lines = Math.min(MOST_LINES, 1 + Math.max(-1, ...out.map((m) => m.line)));
  return { lines, marks: out };
}

/** A vertical line, with its label on top while there is room for one. */
function markOf({ px, label, left, line }, below, height) {
  const shown = label && line < MOST_LINES;
  const top = shown ? 4 + LINE * line : below;
  return svg("g", { class: "mark" },
    svg("line", { x1: px, x2: px, y1: top, y2: height - BOTTOM }),
    shown ? svg("text", { x: left ? px - 4 : px + 4, y: top + 9, "text-anchor": left ? "end" : "start" }, label) : null);
}

/** Draw again whenever the place of a picture gets another width. */
export function watchWidth(node, draw) {
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(node.clientWidth);
    if (now && Math.abs(now - width) > 1) draw((width = now));
  }).observe(node);
}

/** A curve of a few values in a line of text. */
export function spark(row, width = 84, height = 22) {
  const numbers = row.spark.map((v) => (v === null ? null : Number(v)));
  if (numbers.length < 2) return "";
  const finite = numbers.filter((v) => Number.isFinite(v));
  const scale = makeScale(finite, finite.every((v) => v > 0) && Math.max(...finite) > 20 * Math.min(...finite));
  let path = "";
  let pen = false;
  const bad = [];
  const x = (i) => 4 + (i / (numbers.length - 1)) * (width - 8);
  numbers.forEach((v, i) => {
    if (!Number.isFinite(v)) {
      pen = false;
      bad.push(i);
      return;
    }
    path += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${(height - 3 - scale.place(v) * (height - 6)).toFixed(1)}`;
    pen = true;
  });
  const node = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
    svg("path", { class: "curve train", d: path }), stretches(bad).map(([a, b]) => notFinite(x(a), x(b), 5)));
  return node;
}
