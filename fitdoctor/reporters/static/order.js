// Which runs are shown, in which order.

const BADNESS = { sick: 0, "cannot judge": 1, healthy: 2 };
const SURENESS = { high: 0, medium: 1, low: 2 };
const SEVERITY = { error: 0, warning: 1, note: 2 };
const names = new Intl.Collator("en", { numeric: true }).compare;

/** What each column is sorted by; a number, a text, or null, which goes last. */
const KEYS = {
  verdict: (r) => (r.verdict in BADNESS ? BADNESS[r.verdict] * 100 + (SEVERITY[r.severity] ?? 9) * 10 + (SURENESS[r.confidence] ?? 9) : null),
  confidence: (r) => SURENESS[r.confidence] ?? null,
};

function key(row, column) {
  const value = column in KEYS ? KEYS[column](row) : row[column];
  if (value === "" || value === undefined || value === null) return null;
  if (value === "NaN") return null;
  return value === "Infinity" ? Infinity : value === "-Infinity" ? -Infinity : value;
}

/** The rows sorted by "column" or "-column"; equal ones by name. */
export function sorted(rows, order) {
  const down = order.startsWith("-");
  const column = down ? order.slice(1) : order;
  return rows
    .map((row) => [key(row, column), row])
    .sort(([a, x], [b, y]) => {
      if (a === null || b === null) return a === b ? names(x.run, y.run) : a === null ? 1 : -1;
      const way = typeof a === "number" && typeof b === "number" ? a - b : names(String(a), String(b));
      return (down ? -way : way) || names(x.run, y.run);
    })
    .map(([, row]) => row);
}

/** The rows that have all the words, the verdict and the root cause. */
export function filtered(rows, { q, verdict, root }) {
  const words = (q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    if (verdict && row.verdict !== verdict) return false;
    if (root && row.root !== root) return false;
    if (!words.length) return true;
    const text = `${row.run} ${row.verdict} ${row.root} ${row.reason} ${row.source} ${row.optimizer ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}
