// Elements. Text only ever becomes a text node or an attribute value, never markup.

const SVG = "http://www.w3.org/2000/svg";
const opened = new Set(); // keys of the details that the reader has opened; they stay open when data change

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(4)) {
    if (child !== null && child !== undefined && child !== false && child !== "") node.append(child);
  }
  return node;
}

/** An HTML element; an attribute named on… is a listener, one that is false is left out. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Text in which `backticks` set code. */
export function prose(text) {
  const parts = text.split("`");
  if (parts.length % 2 === 0) return [text]; // an odd backtick belongs to somebody's name
  return parts.map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

/** A name of a file or a run, which may break after a slash, a hyphen or an underscore. */
export function breakable(text) {
  return el("bdi", {}, text.split(/(?<=[/_-])/).map((part, i) => [i ? el("wbr") : null, part]));
}

/** A sentence: first letter large, full stop at the end. */
export function sentence(text) {
  if (!text) return [];
  const first = text.split(" ", 1)[0];
  const start = /[_.(`=\d]/.test(first) ? text : text[0].toUpperCase() + text.slice(1);
  return prose(/[.!?]$/.test(start) ? start : `${start}.`);
}

/**
 * A details element that remembers whether it is open; `content` is made when it is first opened.
 * On paper it is open, unless it is `aside`: what is said elsewhere in another way.
 */
export function fold(key, summary, content, aside = false) {
  const box = el("details", { class: aside ? "fold aside" : "fold" }, el("summary", {}, summary));
  let made = false;
  const fill = () => {
    if (made) return;
    made = true;
    box.append(el("div", { class: "folded" }, content()));
  };
  box.addEventListener("toggle", () => {
    if (box.open) {
      opened.add(key);
      fill();
    } else opened.delete(key);
  });
  if (opened.has(key)) {
    fill();
    box.open = true;
  }
  box.unfold = fill;
  return box;
}

/** A button that copies a text and says so. */
export function copyButton(what, text, label = "Copy") {
  const button = el("button", { type: "button", class: "copy", "aria-label": `${label}: ${what}` }, label);
  button.addEventListener("click", async () => {
    const done = await copied(typeof text === "function" ? text() : text);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    announce(done ? `Copied: ${what}` : "Could not copy; the text is selected, press Control C");
    setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without permission (an http page, an iframe): the way of before, from an area beside the page.
    const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Tell a screen reader. */
export function announce(text) {
  let live = document.getElementById("fd-live");
  if (!live) {
    live = el("div", { id: "fd-live", class: "offscreen", role: "status", "aria-live": "polite" });
    document.body.append(live);
  }
  live.textContent = text;
}

/** A table from a head of names and rows of cells. */
export function table(caption, head, rows) {
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, rows.map((r) => el("tr", {}, r.map((c, i) => el(i ? "td" : "th", i ? {} : { scope: "row" }, c)))))));
}
