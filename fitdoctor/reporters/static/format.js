// Numbers and moments as text.

/** A number of the data; "NaN" and "Infinity" stand there as text. */
export function asNumber(value) {
  return value === null || value === undefined || value === "" ? null : Number(value);
}

/** Three significant digits (or as many as are asked for), no more characters than needed. */
export function number(value, digits = 3) {
  const v = asNumber(value);
  if (v === null) return "–";
  if (Number.isNaN(v)) return "nan";
  if (!Number.isFinite(v)) return v > 0 ? "inf" : "-inf";
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return Number(v.toPrecision(digits - 1)).toExponential().replace("e+", "e");
  if (size >= 1000) return Math.round(v).toLocaleString("en-US");
  return String(Number(v.toPrecision(digits)));
}

/** 12,000 */
export function count(value) {
  return value.toLocaleString("en-US");
}

/** "1 run", "12 runs" */
export function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** How long a run is: "1,120", or "50 epochs" where it counts those. */
export function length(row) {
  if (row.steps === null || row.steps === undefined) return "–";
  return row.unit === "epoch" ? plural(row.steps, "epoch") : count(row.steps);
}

/** "step 240 (epoch 2.4)" */
export function moment(step, unit, perEpoch) {
  const epoch = perEpoch ? ` (epoch ${(step / perEpoch).toFixed(1)})` : "";
  return `${unit} ${count(step)}${epoch}`;
}
