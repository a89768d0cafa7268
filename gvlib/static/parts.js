// What the views share. Static pages import this file; under a kernel, where a widget is
// one module, gvlib._view puts its text in place of the import.

export const SVG = "http://www.w3.org/2000/svg";
export const NBSP = "\u00a0";
export const KEYS = {
  ArrowRight: 1,
  ArrowUp: 1,
  ArrowLeft: -1,
  ArrowDown: -1,
  PageUp: 5,
  PageDown: -5,
  Home: -Infinity,
  End: Infinity,
};

export function tag(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  set(node, attributes);
  node.append(...children);
  return node;
}

export function svg(parent, name, attributes = {}, text) {
  const node = document.createElementNS(SVG, name);
  set(node, attributes);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

export function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === false || value == null) node.removeAttribute(key);
    else node.setAttribute(key, value === true ? "" : value);
  }
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The index of the value nearest to the one wanted. */
export function nearest(values, wanted) {
  let best = 0;
  values.forEach((v, i) => {
    if (Math.abs(v - wanted) < Math.abs(values[best] - wanted)) best = i;
  });
  return best;
}

/** A native range input over the positions of a control's values. */
export class Steps {
  constructor(control, id, choose, suffix = "") {
    Object.assign(this, { control, index: 0 });
    this.choose = (index) => choose(clamp(index, 0, control.values.length - 1));
    this.input = tag("input", {
      type: "range",
      id,
      min: 0,
      max: Math.max(control.values.length - 1, 1),
      step: 1,
      input: () => this.choose(Number(this.input.value)),
      keydown: (e) => this.key(e),
    });
    this.output = tag("output", { for: id });
    const label = tag("label", { for: id }, control.label, suffix, " ", this.output);
    this.node = tag("div", { class: "gvx-slider" }, label, this.input);
  }

  // Done here and not by the browser: inside a cell JupyterLab cancels the arrow keys.
  key(event) {
    const step = KEYS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(this.index + step);
  }

  show(index) {
    const text = this.control.texts[index];
    this.index = index;
    this.input.value = index;
    const share = (100 * index) / Number(this.input.max);
    this.input.style.setProperty("--gvx-share", `${share}%`);
    this.input.setAttribute("aria-valuetext", text);
    this.output.textContent = text;
  }
}

/** The index for a text from the address, and a sentence if it is not that value. */
export function match({ values, texts, numeric, label }, text, verb = "shown") {
  const exact = values.findIndex((value) => String(value) === text);
  if (exact >= 0) return [exact, null];
  const asked = `The link asks for ${label} “${text.slice(0, 20)}”, which`;
  const number = text.trim() === "" ? NaN : Number(text);
  if (!numeric || !Number.isFinite(number))
    return [null, `${asked} is not one of its values; the first setting is ${verb}.`];
  const best = nearest(values, number);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (number >= low && number <= high)
    return [best, `${asked} is no stop of its slider; the nearest, ${texts[best]}, is ${verb}.`];
  const ends = [low, high].map((v) => texts[values.indexOf(v)]);
  return [
    best,
    `${asked} is outside ${ends[0]} to ${ends[1]}; ${texts[best]} is ${verb}.`,
  ];
}

/** Puts a state's address into the address bar. */
export function remember(url) {
  // Refused in documents without an address of their own; all works the same.
  try {
    history.replaceState(history.state, "", url);
  } catch {
    /* no address */
  }
}
