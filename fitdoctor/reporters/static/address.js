// What is shown, as part of the address: a copied link restores the view, and Back goes back.

const SINGLE = ["view", "run", "q", "verdict", "root", "sort", "order", "page", "layer"];
const MANY = ["pick"];

/**
 * The state behind the "#" of a window. `tab` is what comes first there and `prefix` what names begin with:
 * TensorBoard keeps the chosen tab there, and "p.<plugin>.<name>" belongs to a plugin.
 */
export class Address {
  constructor(outer, tab = "", prefix = "") {
    this.outer = outer;
    this.tab = tab;
    this.prefix = prefix;
  }

  /** Whether the address belongs to us now; TensorBoard shows another tab otherwise. */
  get ours() {
    return !this.tab || this.#tokens().includes(this.tab);
  }

  read() {
    const state = {};
    for (const token of this.#tokens()) {
      const at = token.indexOf("=");
      if (at < 0 || !token.startsWith(this.prefix)) continue;
      const name = token.slice(this.prefix.length, at);
      const value = decoded(token.slice(at + 1));
      if (SINGLE.includes(name)) state[name] = value;
      else if (MANY.includes(name)) (state[name] ??= []).push(value);
    }
    return state;
  }

  /** The part from "#" on that restores a state. */
  hash(state) {
    const names = [...SINGLE, ...MANY];
    const own = (token) => names.some((n) => token.startsWith(`${this.prefix}${n}=`));
    const kept = this.#tokens().filter((t) => t && !own(t) && (!this.tab || t.includes("=")));
    const ours = names.flatMap((n) => [state[n] ?? []].flat().filter((v) => v !== "").map((v) => `${this.prefix}${n}=${encodeURIComponent(v)}`));
    return `#${[...(this.tab ? [this.tab] : []), ...kept, ...ours].join("&")}`;
  }

  href(state) {
    const { origin, pathname, search, protocol, href } = this.outer.location;
    return (protocol === "file:" ? href.split("#")[0] : origin + pathname + search) + this.hash(state);
  }

  write(state, replace) {
    const hash = this.hash(state);
    if (hash === this.outer.location.hash) return;
    const { history } = this.outer;
    if (replace) history.replaceState(history.state, "", hash);
    else history.pushState(history.state, "", hash);
  }

  listen(changed) {
    this.outer.addEventListener("popstate", changed);
    this.outer.addEventListener("hashchange", changed);
  }

  #tokens() {
    return this.outer.location.hash.slice(1).split("&");
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a percent sign that somebody typed
  }
}
