// From values to places on an axis, and the ticks beside it.

import { asNumber, number } from "./format.js";

/** Maps values to 0..1; on a log axis where asked and no value is negative. Zeros lie at its lower end then. */
export function makeScale(values, log) {
  let low = Infinity;
  let high = -Infinity;
  let positive = Infinity;
  for (const v of values) {
    if (v === null || !Number.isFinite(v)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
    if (v > 0 && v < positive) positive = v;
  }
  if (low > high) low = high = 0;
  const logarithmic = Boolean(log) && low >= 0 && high > 0;
  if (logarithmic) low = positive;
  const f = logarithmic ? Math.log10 : (v) => v / 2; // halved: the difference of two huge numbers may overflow
  const a = f(low);
  const b = f(high);
  const place = (v) => (b > a ? (logarithmic && v <= 0 ? 0 : (f(v) - a) / (b - a)) : 0.5);
  return { low, high, log: logarithmic, place };
}

/** Round values within the scale, about `most` of them and never fewer than two. */
export function ticks(scale, most) {
  const { low, high } = scale;
  if (!(high > low)) return [low];
  const found = scale.log ? decades(low, high, most) : rounds(low, high, most);
  return found.length > 1 ? found : [low, high];
}

function decades(low, high, most) {
  const first = Math.ceil(Math.log10(low) - 1e-9);
  const last = Math.floor(Math.log10(high) + 1e-9);
  const stride = [1, 2, 3, 5, 10, 20, 30, 50, 100].find((k) => (last - first) / k <= most) ?? 200;
  const powers = within(first, last, stride).map((k) => Number(`1e${k}`));
  if (powers.length > 1) return powers;
  const between = [];
  for (let k = first - 1; k <= last; k++) between.push(...[1, 2, 5].map((m) => Number(`${m}e${k}`)));
  const kept = between.filter((v) => v >= low && v <= high);
  return kept.length > 1 ? kept : rounds(low, high, most);
}

function rounds(low, high, most) {
  for (let wanted = most; wanted <= 8 * most; wanted *= 2) {
    const rough = ((high / 2 - low / 2) / wanted) * 2; // halved: the difference of two huge numbers may overflow
    const unit = 10 ** Math.floor(Math.log10(rough));
    if (!Number.isFinite(unit) || unit === 0) return [];
    const stride = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= rough * 0.999) ?? rough;
    const first = Math.ceil(low / stride - 1e-9);
    const last = Math.floor(high / stride + 1e-9);
    if (last > first) return within(first, last, 1).map((k) => Number((k * stride).toPrecision(12)));
  }
  return [];
}

function within(first, last, stride) {
  const out = [];
  for (let k = Math.ceil(first / stride) * stride; k <= last && out.length < 40; k += stride) out.push(k);
  return out;
}

/** The labels of ticks, with as many digits as tell them apart. */
export function tickLabels(found) {
  for (let digits = 3; digits < 8; digits++) {
    const told = found.map((v) => number(v, digits));
    if (new Set(told).size === found.length) return told;
  }
  return found.map(String);
}

/** The values of a curve as numbers. */
export function values(curve) {
  return curve.y.map(asNumber);
}

/** Index of the last element that is not above `x`, or -1; the array increases. */
export function lastUpTo(sorted, x) {
  let a = 0;
  let b = sorted.length;
  while (a < b) {
    const m = (a + b) >> 1;
    if (sorted[m] <= x) a = m + 1;
    else b = m;
  }
  return a - 1;
}
