// From values to places on an axis, and the ticks beside it.

import { asNumber } from "./format.js";

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

/** At most about `most` round values within the scale. */
export function ticks(scale, most) {
  const { low, high } = scale;
  if (!(high > low)) return [low];
  if (scale.log) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    if (last > first) {
      const stride = Math.ceil((last - first + 1) / most);
      const out = [];
      for (let k = first; k <= last; k += stride) out.push(10 ** k);
      return out;
    }
    return [low, high];
  }
  const rough = (high / 2 - low / 2) / most * 2;
  const unit = 10 ** Math.floor(Math.log10(rough));
  if (!Number.isFinite(unit) || unit === 0) return [low, high];
  const stride = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= rough * 0.999) ?? rough;
  const out = [];
  for (let k = Math.ceil(low / stride - 1e-9); k * stride <= high * (high > 0 ? 1 + 1e-12 : 1); k++) {
    out.push(Number((k * stride).toPrecision(12)));
    if (out.length > 2 * most + 2) break;
  }
  return out.length ? out : [low, high];
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
