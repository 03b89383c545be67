// Layer by step: a heat map on a canvas, with a readout by pointer or arrow keys and the numbers as a table.

import { watchWidth } from "./chart.js";
import { el, fold, table } from "./dom.js";
import { asNumber, count, number } from "./format.js";
import { makeScale } from "./scale.js";

// viridis at nine places: equal steps look equal, in grey and to colour-blind eyes too.
const COLOURS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37],
];
// For values of both signs: zero is pale in the middle, the two ways differ to colour-blind eyes too.
const SIGNED = [[84, 39, 136], [153, 142, 195], [247, 247, 247], [241, 163, 64], [179, 88, 6]];
const BAD = "#d0021b";

function colour(place, colours) {
  const at = Math.min(Math.max(place, 0), 1) * (colours.length - 1);
  const i = Math.min(Math.floor(at), colours.length - 2);
  const mix = colours[i].map((c, k) => Math.round(c + (colours[i + 1][k] - c) * (at - i)));
  return `rgb(${mix.join(" ")})`;
}

/** The chooser of a quantity and its map; `chosen` names the quantity, `choose` is called with another. */
export function heatMaps(maps, about, chosen, choose) {
  const map = maps.find((m) => m.quantity === chosen) ?? maps[0];
  const select = el("select", { id: "fd-layer", onchange: () => choose(select.value) },
    maps.map((m) => el("option", { value: m.quantity, selected: m === map }, m.title)));
  return el("section", { class: "layers", "aria-labelledby": "fd-layers-title" },
    el("div", { class: "section-head" },
      el("h2", { id: "fd-layers-title" }, "Layer by step"),
      el("label", { for: "fd-layer" }, "show "), select),
    el("p", { class: "quiet" }, map.doc, map.spans.some(([a, b]) => b > a) ? ` A cell shows the value of largest magnitude in its stretch of ${about.unit}s.` : ""),
    heatMap(map, about));
}

function heatMap(map, about) {
  const cells = map.values.map((line) => line.map(asNumber));
  const flat = cells.flat().filter((v) => v !== null);
  const scale = coloured(flat, map);
  const columns = map.spans.length;
  const rows = map.layers.length;
  const tall = rows > 48 ? Math.max(4, Math.floor(620 / rows)) : rows > 24 ? 14 : 20;
  const every = Math.ceil(13 / tall);
  const readout = el("p", { class: "readout", "aria-live": "polite" }, "\u00a0");
  const canvas = el("canvas", { "aria-hidden": "true" });
  const cursor = el("div", { class: "cursor", hidden: true });
  const grid = el("div", {
    class: "heat",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "heat map",
    "aria-label": `${map.title} of ${count(rows)} layers over ${about.unit}s; arrow keys read the values`,
    "aria-describedby": "fd-heat-summary",
  }, canvas, cursor);
  grid.style.height = `${rows * tall}px`;
  const paint = (width) => paintCells(canvas, cells, scale, width, rows * tall);
  paint(600);
  watchWidth(grid, paint);

  let at = null;
  const show = (r, c) => {
    at = [Math.min(rows - 1, Math.max(0, r)), Math.min(columns - 1, Math.max(0, c))];
    const [a, b] = map.spans[at[1]];
    const value = cells[at[0]][at[1]];
    const where = a === b ? `${about.unit} ${count(a)}` : `${about.unit}s ${count(a)} to ${count(b)}`;
    readout.textContent = `${map.layers[at[0]]} · ${where} · ${value === null ? "not logged" : number(value)}${value !== null && map.unit ? ` ${map.unit}` : ""}`;
    cursor.hidden = false;
    cursor.style.left = `${(100 * at[1]) / columns}%`;
    cursor.style.width = `${100 / columns}%`;
    cursor.style.top = `${at[0] * tall}px`;
    cursor.style.height = `${tall}px`;
  };
  grid.addEventListener("pointermove", (event) => {
    const box = grid.getBoundingClientRect();
    show(Math.floor((event.clientY - box.top) / tall), Math.floor(((event.clientX - box.left) / box.width) * columns));
  });
  const away = () => {
    cursor.hidden = true;
    readout.textContent = "\u00a0";
  };
  grid.addEventListener("pointerleave", () => document.activeElement === grid || away());
  grid.addEventListener("blur", away);
  grid.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -columns], End: [0, columns] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [r, c] = at ?? [0, event.key === "End" ? 0 : -Math.min(0, move[1])];
    show(at ? r + move[0] : 0, at ? c + move[1] : event.key === "End" ? columns : 0);
  });
  const labels = el("div", { class: "heat-labels", "aria-hidden": "true" },
    map.layers.map((layer, i) => {
      const label = el("div", { title: layer }, i % every ? "" : el("span", {}, layer));
      label.style.height = `${tall}px`;
      return label;
    }));
  // The step at which a column begins, below it; columns may stand for stretches of any length.
  const below = Math.min(5, columns);
  const at0 = (i) => Math.floor((i * columns) / below);
  const steps = Array.from({ length: below }, (_, i) => {
    const label = el("span", {}, i ? "" : `${about.unit} `, count(map.spans[at0(i)][0]));
    label.style.left = `${(100 * at0(i)) / columns}%`;
    return label;
  });
  return el("figure", { class: "chart heatmap" },
    readout,
    el("div", { class: "heat-body" }, labels, grid,
      el("div", { class: "heat-steps", "aria-hidden": "true" }, steps)),
    ramp(scale, flat, map.unit, cells.some((line) => line.includes(null))),
    el("p", { class: "quiet", id: "fd-heat-summary" }, inWords(map, cells, about)),
    fold(`layers/${map.quantity}/values`, "Values as a table", () => layerTable(map, cells, about), true));
}

/** From values to colours: along one ramp, or to both sides of zero where values have both signs. */
function coloured(flat, { log, unit }) {
  const scale = makeScale(flat, log);
  // Shares have the same colour in every run: all at 0.01 must not look like some at 1.
  if (unit === "fraction" && !scale.log && scale.low >= 0 && scale.high <= 1) return { ...makeScale([0, 1], false), colours: COLOURS };
  if (!(scale.low < 0 && scale.high > 0)) return { ...scale, colours: COLOURS };
  const most = Math.max(-scale.low, scale.high);
  return { ...makeScale([-most, most], false), colours: SIGNED };
}

function paintCells(canvas, cells, scale, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  const rows = cells.length;
  const columns = cells[0].length;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const v = cells[r][c];
      if (v === null) continue;
      pen.fillStyle = Number.isFinite(v) ? colour(scale.place(v), scale.colours) : BAD;
      const x = Math.round((c * canvas.width) / columns);
      const y = Math.round((r * canvas.height) / rows);
      const gap = canvas.height / rows > 8 * ratio ? Math.round(ratio) : 0;
      pen.fillRect(x, y, Math.round(((c + 1) * canvas.width) / columns) - x, Math.round(((r + 1) * canvas.height) / rows) - y - gap);
    }
  }
}

function ramp(scale, flat, unit, gaps) {
  const bar = el("canvas", { class: "ramp", width: 120, height: 10, "aria-hidden": "true" });
  const pen = bar.getContext("2d");
  for (let i = 0; i < 120; i++) {
    pen.fillStyle = colour(i / 119, scale.colours);
    pen.fillRect(i, 0, 1, 10);
  }
  const bad = flat.some((v) => !Number.isFinite(v));
  return el("p", { class: "ramp-line" },
    el("span", {}, flat.some((v) => v < scale.low) ? "≤ " : "", number(scale.low)), bar, el("span", {}, number(scale.high)),
    unit ? el("span", {}, unit) : null,
    scale.log ? el("small", {}, "log scale") : null,
    bad ? el("span", { class: "key" }, el("span", { class: "swatch bad", "aria-hidden": "true" }), "not finite") : null,
    gaps ? el("span", { class: "key" }, el("span", { class: "swatch gap", "aria-hidden": "true" }), "not logged") : null);
}

function inWords(map, cells, about) {
  let top = null;
  let bottom = null;
  let bad = null;
  cells.forEach((line, r) => line.forEach((v, c) => {
    if (v === null) return;
    if (!Number.isFinite(v)) bad ??= [r, c];
    else {
      if (!top || v > cells[top[0]][top[1]]) top = [r, c];
      if (!bottom || v < cells[bottom[0]][bottom[1]]) bottom = [r, c];
    }
  }));
  const spot = ([r, c]) => `${map.layers[r]} at ${about.unit} ${count(map.spans[c][0])}`;
  const parts = [];
  if (top) parts.push(`Largest ${number(cells[top[0]][top[1]])} in ${spot(top)}, smallest ${number(cells[bottom[0]][bottom[1]])} in ${spot(bottom)}.`);
  if (bad) parts.push(`Not finite from ${about.unit} ${count(map.spans[bad[1]][0])} on, first seen in ${map.layers[bad[0]]}.`);
  return parts.join(" ");
}

function layerTable(map, cells, about) {
  const rows = cells.map((line, r) => {
    const told = line.filter((v) => v !== null);
    const finite = told.filter((v) => Number.isFinite(v)).sort((a, b) => a - b);
    const middle = finite.length ? finite[finite.length >> 1] : null;
    return [map.layers[r], number(told[0]), number(middle), number(told[told.length - 1]), number(finite[0]), number(finite[finite.length - 1])];
  });
  return table(`${map.title} by layer, over all ${about.unit}s`, ["layer", "first", "median", "last", "smallest", "largest"], rows);
}
