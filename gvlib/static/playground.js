// Playground: trains the page's own network, compiled to WebAssembly, before the reader.
// One module with the anywidget contract: under a kernel anywidget calls render(), on a
// static page host.js does. Data, first weights and indices come from Python as bytes.

import { NBSP, Steps, clamp, match, remember, set, svg, tag } from "./parts.js";

const GRID = 64; // points of the decision boundary along each side
const FRAME = 15; // ms for training and drawing together: 60 redraws a second
const LEAST = 4; // ms of training between two redraws, however long drawing takes
const CHARTS = 66; // ms between two drawings of the curves, which the eye needn't follow
const RECORDS = 400; // points of a curve: more than its pixels show nothing new
const SPEEDS = [
  ["5", 5, `5 steps/s`],
  ["30", 30, `30 steps/s`],
  ["200", 200, `200 steps/s`],
  ["1000", 1000, `1000 steps/s`],
  ["max", Infinity, "as fast as it goes"],
];

const tone = (k) => `gvx-s${((k + 2) % 8) + 1}`; // the first two colours are the classes'

function write(value, format) {
  if (!Number.isFinite(value)) return "no number";
  if (format === "percent") return `${(100 * value).toFixed(1)}${NBSP}%`;
  return String(Number(value.toPrecision(3)));
}

// ---- the compiled experiment --------------------------------------------------------

const ARRAYS = { f32: Float32Array, i32: Int32Array };
// The smallest module with a SIMD instruction: () -> v128, i32x4.splat of 0.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65,
  0, 253, 17, 11,
]);

/** One run of a compiled experiment: its memory and its functions. */
export class Program {
  static supported() {
    return typeof WebAssembly === "object" && WebAssembly.validate(SIMD);
  }

  constructor(module, spec) {
    this.spec = spec;
    this.names = Object.keys(spec.tensors);
    this.places = Object.fromEntries(this.names.map((name, k) => [name, k]));
    this.exports = new WebAssembly.Instance(module, {}).exports;
    this.sizes = {};
  }

  /** Lays the memory out anew; all tensors are undefined after it. */
  resize(sizes) {
    const { memory, get_sizes, get_tensors, setup } = this.exports;
    for (const [name, least] of Object.entries(this.spec.sizes))
      if (!(Number.isInteger(sizes[name]) && sizes[name] >= least))
        throw new RangeError(
          `size ${name} is ${sizes[name]}: expected ${least} or more`,
        );
    this.sizes = { ...sizes };
    const numbers = Object.keys(this.spec.sizes).map((name) => sizes[name]);
    new Int32Array(memory.buffer, get_sizes(), numbers.length).set(numbers);
    if (!setup()) throw new RangeError("the browser gives no more memory");
    this.table = new Uint32Array(memory.buffer, get_tensors(), this.names.length);
  }

  length(name) {
    const { shape } = this.spec.tensors[name];
    return shape.reduce((n, s) => n * (typeof s === "number" ? s : this.sizes[s]), 1);
  }

  /** The tensor's numbers where they lie now; a step moves its states. */
  get(name) {
    const { dtype } = this.spec.tensors[name];
    const { buffer } = this.exports.memory;
    return new ARRAYS[dtype](
      buffer,
      this.table[this.places[name]],
      this.length(name),
    );
  }

  set(name, values) {
    const target = this.get(name);
    if (values.length !== target.length)
      throw new RangeError(
        `${name} has ${values.length} numbers, expected ${target.length}`,
      );
    target.set(values);
  }

  /** Repeats a function; fewer repeats come back when an output was no number. */
  call(name, repeats = 1) {
    return this.exports[`f_${name}`](repeats);
  }
}

/** One network in training: its program, its step, its recorded values. */
class Run {
  constructor(spec, module, data) {
    Object.assign(this, { spec, data, chunk: 1 });
    this.program = new Program(module, spec.live);
    this.field = new Float32Array(GRID * GRID);
    this.names = spec.panels.flatMap((panel) => panel.series.map((s) => s.name));
  }

  /** Back to step 0 with the first weights of these slider positions. */
  start(picks) {
    const { variants, sliders } = this.spec;
    const at = variants.axes.reduce((k, name) => {
      const i = sliders.findIndex((s) => s.name === name);
      return k * sliders[i].values.length + picks[i];
    }, 0);
    const { sizes, tensors } = variants.items[at];
    this.program.resize({ ...sizes, ...this.spec.predict.sizes });
    for (const [name, k] of Object.entries(tensors)) this.fill(name, k);
    Object.assign(this, { step: 0, stopped: null, stride: 1, next: 0, changes: [] });
    this.steps = [];
    this.values = Object.fromEntries(this.names.map((name) => [name, []]));
    this.turn(picks);
    this.record();
  }

  fill(name, k) {
    const [offset, length] = this.spec.arrays[k];
    if (offset < 0) this.program.get(name).fill(0);
    else {
      const array = ARRAYS[this.spec.live.tensors[name].dtype];
      this.program.set(name, new array(this.data, offset, length));
    }
  }

  /** Sliders that act at once. */
  turn(picks) {
    this.spec.sliders.forEach(({ name, values, restarts }, i) => {
      if (!restarts) this.program.get(name)[0] = values[picks[i]];
    });
  }

  /** Marks a slider that was moved while training. */
  changed() {
    if (this.step && this.changes.at(-1) !== this.step) this.changes.push(this.step);
  }

  /** Up to `count` steps, until `deadline`; records on the way. */
  advance(count, deadline) {
    let left = count,
      before = performance.now();
    while (left > 0 && !this.stopped) {
      const chunk = Math.min(left, this.next - this.step, this.chunk);
      const done = this.program.call(this.spec.step, chunk);
      this.step += done;
      left -= done;
      if (done < chunk || !this.finite()) this.stopped = { step: this.step };
      if (this.step === this.next || this.stopped) this.record();
      const now = performance.now();
      // About 2 ms between looks at the clock, whatever the network's size.
      if (chunk === this.chunk)
        this.chunk = now - before < 2 ? this.chunk * 2 : Math.max(1, this.chunk >> 1);
      before = now;
      if (now > deadline) break;
    }
    return count - left;
  }

  finite() {
    return this.spec.watched.every((name) =>
      Number.isFinite(this.program.get(name)[0]),
    );
  }

  /** Measures and keeps the values of this step; thins them when there are many. */
  record() {
    this.measure();
    if (this.steps.at(-1) === this.step) return;
    this.steps.push(this.step);
    for (const name of this.names) this.values[name].push(this.now[name]);
    if (this.spec.log) this.next = Math.max(this.step + 1, Math.ceil(this.step * 1.03));
    else {
      if (this.steps.length > RECORDS) this.thin();
      this.next = (Math.floor(this.step / this.stride) + 1) * this.stride;
    }
  }

  thin() {
    this.stride *= 2;
    const keep = (_, k) => this.steps[k] % this.stride === 0;
    for (const name of this.names) this.values[name] = this.values[name].filter(keep);
    this.steps = this.steps.filter(keep);
  }

  /** Calls the measures; the step's own outputs exist from the first step on. */
  measure() {
    for (const name of this.spec.measures) this.program.call(name);
    this.now = Object.fromEntries(
      this.names.map((name) => {
        const own = this.spec.live.functions[this.spec.step].outputs.includes(name);
        return [name, own && !this.step ? NaN : this.program.get(name)[0]];
      }),
    );
  }

  /** The score on the grid, row by row from the top. */
  look() {
    const { name, input, output, sizes } = this.spec.predict;
    const [left, right, bottom, top] = this.spec.extent;
    const [chunk] = Object.values(sizes);
    for (let from = 0; from < GRID * GRID; from += chunk) {
      const points = this.program.get(input);
      for (let k = 0; k < chunk; k++) {
        const i = (from + k) % GRID,
          j = Math.floor((from + k) / GRID);
        points[2 * k] = left + ((right - left) * i) / (GRID - 1);
        points[2 * k + 1] = top - ((top - bottom) * j) / (GRID - 1);
      }
      this.program.call(name);
      this.field.set(this.program.get(output), from);
    }
    return this.field;
  }
}

// ---- the picture of the decision boundary -------------------------------------------

/** Draws a line where the values (GRID x GRID) pass a level. */
function contour(context, values, level, size) {
  const cell = size / (GRID - 1);
  const cross = (a, b) => (level - a) / (b - a);
  context.beginPath();
  for (let j = 0; j < GRID - 1; j++) {
    for (let i = 0; i < GRID - 1; i++) {
      const k = j * GRID + i;
      const a = values[k],
        b = values[k + 1],
        c = values[k + GRID + 1],
        d = values[k + GRID];
      const kind = (a > level) | ((b > level) << 1) | ((c > level) << 2) | ((d > level) << 3);
      if (kind === 0 || kind === 15) continue;
      const sides = [
        () => [i + cross(a, b), j],
        () => [i + 1, j + cross(b, c)],
        () => [i + cross(d, c), j + 1],
        () => [i, j + cross(a, d)],
      ];
      for (const [from, to] of PIECES[kind]) {
        const [x0, y0] = sides[from](),
          [x1, y1] = sides[to]();
        context.moveTo(x0 * cell, y0 * cell);
        context.lineTo(x1 * cell, y1 * cell);
      }
    }
  }
  context.stroke();
}

// Which sides (top, right, bottom, left) the line joins, by the corners above the level.
const PIECES = {
  1: [[3, 0]], 2: [[0, 1]], 3: [[3, 1]], 4: [[1, 2]], 5: [[3, 2], [0, 1]],
  6: [[0, 2]], 7: [[3, 2]], 8: [[2, 3]], 9: [[0, 2]], 10: [[3, 0], [1, 2]],
  11: [[1, 2]], 12: [[3, 1]], 13: [[0, 1]], 14: [[3, 0]],
}; // prettier-ignore

class Field {
  constructor(view, run, letter) {
    Object.assign(this, { view, run });
    const words = { role: "img", "aria-label": view.spec.title }; // until it is drawn
    this.canvas = tag("canvas", { class: "gvp-canvas", ...words });
    this.name = tag("p", { class: "gvp-name" }, letter);
    this.node = tag("div", { class: "gvp-field" }, this.name, this.canvas);
    this.small = document.createElement("canvas");
    this.small.width = this.small.height = GRID;
    this.image = new ImageData(GRID, GRID);
  }

  layout(size) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.size = size;
    Object.assign(this.canvas, { width: size * ratio, height: size * ratio });
    Object.assign(this.canvas.style, { width: `${size}px`, height: `${size}px` });
    this.context = this.canvas.getContext("2d");
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  draw(colours) {
    const { context, size } = this;
    const values = this.run.look();
    this.shade(values, colours);
    const cell = size / (GRID - 1);
    context.clearRect(0, 0, size, size);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.small, -cell / 2, -cell / 2, GRID * cell, GRID * cell);
    this.lines(values, colours);
    context.drawImage(this.points(colours), 0, 0, size, size);
  }

  /** The points on a layer of their own, drawn anew only when they change. */
  points(colours) {
    const sets = this.view.spec.points.filter((set) => !set.optional || this.view.tests);
    const labels = sets.map(({ y }) => this.run.program.get(y).join(""));
    const key = [...labels, Object.values(colours).join(), this.canvas.width].join("|");
    if (key === this.key) return this.layer;
    this.key = key;
    this.layer ??= document.createElement("canvas");
    Object.assign(this.layer, { width: this.canvas.width, height: this.canvas.height });
    const context = this.layer.getContext("2d");
    context.scale(this.canvas.width / this.size, this.canvas.width / this.size);
    for (const set of sets) this.dots(context, set, colours);
    return this.layer;
  }

  /** The classes' colours, stronger where the score is surer; tanh(score) is 2 p - 1. */
  shade(values, { back, classes }) {
    const { data } = this.image;
    for (let k = 0; k < values.length; k++) {
      const sure = Math.tanh(values[k]) || 0,
        share = 0.42 * Math.abs(sure);
      const colour = classes[sure > 0 ? 1 : 0];
      for (let c = 0; c < 3; c++) data[4 * k + c] = back[c] + share * (colour[c] - back[c]);
      data[4 * k + 3] = 255;
    }
    this.small.getContext("2d").putImageData(this.image, 0, 0);
  }

  lines(values, { text }) {
    const { context, size } = this;
    context.strokeStyle = `rgb(${text})`;
    context.lineWidth = 2.2;
    contour(context, values, 0, size);
    context.lineWidth = 1.2;
    for (const level of this.levels()) contour(context, values, level, size);
    if (this.view.spec.guide) this.guide(this.view.spec.guide);
  }

  /** The line a x + b y + c = 0, which does not move. */
  guide(name) {
    const [a, b, c] = this.run.program.get(name);
    const [left, right, bottom, top] = this.view.spec.extent;
    const values = this.fixed ?? new Float32Array(GRID * GRID);
    if (!this.fixed)
      for (let k = 0; k < GRID * GRID; k++) {
        const x = left + ((right - left) * (k % GRID)) / (GRID - 1),
          y = top - ((top - bottom) * Math.floor(k / GRID)) / (GRID - 1);
        values[k] = a * x + b * y + c;
      }
    this.fixed = values;
    this.context.lineWidth = 2;
    this.context.setLineDash([2, 5]);
    contour(this.context, values, 0, this.size);
    this.context.setLineDash([]);
  }

  /** The margin lines' levels: fixed ones, or those through the nearest points. */
  levels() {
    const { lines } = this.view.spec;
    if (Array.isArray(lines)) return lines;
    if (!lines) return [];
    const level = this.run.program.get(lines)[0];
    return level > 0 ? [-level, level] : [];
  }

  dots(context, { x, y, optional }, { back, classes }) {
    const { size } = this;
    const [left, right, bottom, top] = this.view.spec.extent;
    const places = this.run.program.get(x),
      labels = this.run.program.get(y);
    const r = (optional ? 2.4 : 3.4) * clamp(size / 340, 0.6, 1.2);
    for (let k = 0; k < labels.length; k++) {
      const px = (size * (places[2 * k] - left)) / (right - left),
        py = (size * (top - places[2 * k + 1])) / (top - bottom);
      context.beginPath();
      if (labels[k] > 0) context.rect(px - r * 0.9, py - r * 0.9, r * 1.8, r * 1.8);
      else context.arc(px, py, r, 0, 7);
      const colour = `rgb(${classes[labels[k] > 0 ? 1 : 0]})`;
      if (optional) {
        context.strokeStyle = colour;
        context.lineWidth = 1.5;
      } else {
        context.fillStyle = colour;
        context.fill();
        context.strokeStyle = `rgb(${back})`;
        context.lineWidth = 1;
      }
      context.stroke();
    }
  }
}

// ---- curves -------------------------------------------------------------------------

/** 1, 2 or 5 times a power of ten, not below the value. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((m) => m * power).find((v) => v >= value * (1 - 1e-9));
}

const short = (v) =>
  v >= 1e6 ? `${v / 1e6}M` : v >= 1e4 ? `${v / 1e3}k` : String(Number(v.toPrecision(3)));

class Chart {
  constructor(view, panel, first) {
    Object.assign(this, { view, panel, first });
    this.keys = panel.series.map(({ label }, k) => {
      const value = tag("b");
      const key = tag("span", { class: `gvp-key ${tone(first + k)}` }, tag("i"), label, " ", value);
      return { key, value };
    });
    this.svg = svg(document.createElement("div"), "svg", {
      class: "gvx-svg gvp-chart",
      role: "img",
      "aria-label": `${panel.title} by training step`,
    });
    this.axes = svg(this.svg, "g");
    this.marks = svg(this.svg, "path", { class: "gvp-change" });
    this.paths = [];
    this.node = tag(
      "div",
      { class: "gvp-panel" },
      tag("p", { class: "gvp-legend" }, ...this.keys.map(({ key }) => key)),
      this.svg,
    );
  }

  layout(width) {
    const height = Math.round(clamp(width * 0.42, 104, 150));
    this.box = { left: 44, right: width - 12, top: 8, bottom: height - 20 };
    set(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    this.scale = null;
  }

  limits(runs) {
    const last = Math.max(...runs.map((r) => r.step), 10);
    let high = 1,
      low = 0;
    if (this.panel.format !== "percent") {
      const all = runs.flatMap((r) => this.panel.series.flatMap((s) => r.values[s.name]));
      const known = all.filter(Number.isFinite);
      const most = Math.max(...known, 0),
        least = Math.min(...known, 0);
      high = most > 0 ? round(most) : 0;
      low = least < 0 ? -round(-least) : 0;
      if (high === low) high = low + 1;
    }
    return { last: round(last), low, high };
  }

  draw() {
    const { runs, spec } = this.view,
      { box } = this;
    const now = this.limits(runs);
    if (JSON.stringify(now) !== this.scale) {
      this.scale = JSON.stringify(now);
      this.frame(now);
    }
    const span = box.right - box.left;
    const log = (s) => Math.log10(Math.max(s, 1)) / Math.log10(now.last);
    this.X = (s) => box.left + span * (spec.log ? log(s) : s / now.last);
    this.Y = (v) =>
      box.bottom - (box.bottom - box.top) * clamp((v - now.low) / (now.high - now.low), 0, 1);
    this.lines(runs);
    const places = runs[0].changes.map((s) => `M${this.X(s).toFixed(1)} ${box.top}V${box.bottom}`);
    set(this.marks, { d: places.join("") });
    this.keys.forEach(({ value }, k) => {
      const { name } = this.panel.series[k];
      const texts = runs.map((r) =>
        !r.step && Number.isNaN(r.now[name]) ? "–" : write(r.now[name], this.panel.format),
      );
      value.textContent = texts.length > 1 ? `A ${texts[0]} · B ${texts[1]}` : texts[0];
    });
  }

  lines(runs) {
    let at = 0;
    runs.forEach((run, which) =>
      this.panel.series.forEach(({ name }, k) => {
        this.paths[at] ??= svg(this.svg, "path");
        const kind = which ? "gvx-line gvp-second" : "gvx-line";
        set(this.paths[at++], {
          class: `${kind} ${tone(this.first + k)}`,
          d: this.path(run.steps, run.values[name]),
        });
      }),
    );
    this.paths.splice(at).forEach((path) => path.remove());
  }

  path(steps, values) {
    let text = "";
    values.forEach((v, k) => {
      if (Number.isFinite(v) && (steps[k] || !this.view.spec.log))
        text += `${text ? "L" : "M"}${this.X(steps[k]).toFixed(1)} ${this.Y(v).toFixed(1)}`;
    });
    return text;
  }

  frame({ last, low, high }) {
    const { box } = this,
      { log } = this.view.spec;
    this.axes.replaceChildren();
    for (const v of [low, (low + high) / 2, high]) {
      const y = box.bottom - ((box.bottom - box.top) * (v - low)) / (high - low);
      svg(this.axes, "path", { class: "gvx-grid", d: `M${box.left} ${y}H${box.right}` });
      const text = this.panel.format === "percent" ? `${100 * v}${NBSP}%` : short(v);
      svg(this.axes, "text", { x: box.left - 6, y: y + 4, "text-anchor": "end" }, text);
    }
    const powers = Math.floor(Math.log10(last)) + 1;
    const every = Math.ceil((powers * 48) / (box.right - box.left)); // pixels of a label
    const ticks = log
      ? Array.from({ length: powers }, (_, k) => 10 ** k).filter(
          (_, k) => (powers - 1 - k) % every === 0,
        )
      : [0, last / 2, last];
    ticks.forEach((v, k) => {
      const share = log ? Math.log10(v) / Math.log10(last) : v / last;
      const x = box.left + (box.right - box.left) * share;
      const end = k === ticks.length - 1 && share > 0.9;
      const text = end ? `${short(v)} steps` : short(v);
      const anchor = end ? "end" : k ? "middle" : "start";
      svg(
        this.axes,
        "text",
        { x: end ? box.right + 10 : x, y: box.bottom + 15, "text-anchor": anchor },
        text,
      );
    });
  }
}

// ---- controls -----------------------------------------------------------------------

/** The state in the page's address: sliders, the comparison, the speed. */
class Address {
  constructor(id, { sliders, other }) {
    Object.assign(this, { id, sliders, other });
  }

  read(state) {
    const query = new URLSearchParams(location.search),
      said = [];
    const ask = (control, text) => {
      const [index, problem] = match(control, text, "used");
      if (problem) said.push(problem);
      return index;
    };
    this.sliders.forEach((control, i) => {
      const text = query.get(`${this.id}.${control.name}`);
      if (text !== null) state.picks[i] = ask(control, text) ?? state.picks[i];
    });
    if (query.get(`${this.id}.vs`) === "nothing") state.other = null;
    const [name, value] = (query.get(`${this.id}.vs`) ?? "").split(/:(.*)/s);
    const which = this.sliders.findIndex((s) => s.name === name);
    if (which >= 0) {
      const index = ask(this.sliders[which], value ?? "");
      state.other = { which, pick: index ?? state.picks[which] };
    } else if (name && name !== "nothing") said.push(`The link compares “${name.slice(0, 20)}”, which is no slider.`);
    const speed = query.get(`${this.id}.speed`);
    if (SPEEDS.some(([key]) => key === speed)) state.speed = speed;
    return said;
  }

  url({ picks, other, speed }) {
    const url = new URL(location.href),
      { searchParams } = url;
    this.sliders.forEach(({ name, values }, i) =>
      searchParams.set(`${this.id}.${name}`, values[picks[i]]),
    );
    searchParams.set(`${this.id}.speed`, speed);
    if (other) {
      const { name, values } = this.sliders[other.which];
      searchParams.set(`${this.id}.vs`, `${name}:${values[other.pick]}`);
    } else if (this.other) searchParams.set(`${this.id}.vs`, "nothing");
    else searchParams.delete(`${this.id}.vs`);
    return url;
  }

  write(state) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      remember(this.url(state));
    }, 150);
  }

  link(state) {
    const url = this.url(state);
    url.hash = `gv-${this.id}`;
    return url.href;
  }
}

// ---- the whole ----------------------------------------------------------------------

class View {
  constructor(model, module, data, root) {
    const spec = (this.spec = model.get("spec"));
    Object.assign(this, { model, module, data, playing: false, due: 0, tests: false, cost: 6 });
    const { other, speed } = spec;
    this.state = { picks: [...model.get("picks")], other: other && { ...other }, speed };
    this.uid = `gvp-${Math.random().toString(36).slice(2, 9)}`;
    const host = model.get("host");
    this.address = host ? new Address(host.replace(/^gv-/, ""), spec) : null;
    this.said = this.address ? this.address.read(this.state) : [];
    this.runs = [new Run(spec, module, this.data)];
    this.build(root);
    this.note.textContent = this.said.join(" ");
    this.note.hidden = !this.said.length;
    this.watch();
    this.arrange();
    this.restart();
  }

  // ---- parts

  build(root) {
    const { spec } = this;
    this.note = tag("p", { class: "gvx-note", role: "status", hidden: true });
    this.alarm = tag("p", { class: "gvx-note gv-error", role: "alert", hidden: true });
    this.fields = tag("div", { class: "gvp-fields" });
    let first = 0;
    this.charts = spec.panels.map((panel) => {
      const chart = new Chart(this, panel, first);
      first += panel.series.length;
      return chart;
    });
    this.curves = tag("div", { class: "gvp-curves" }, ...this.charts.map((c) => c.node));
    this.controls = tag("div", { class: "gvx-controls gvp-sliders" });
    this.live = tag("p", { class: "gvx-hidden", "aria-live": "polite" });
    this.node = tag(
      "div",
      {
        class: "gvx gvp gv-playground",
        role: "group",
        "aria-label": spec.title,
        "data-lm-suppress-shortcuts": "true",
      },
      tag("p", { class: "gvx-title" }, spec.title),
      this.note,
      this.alarm,
      tag("div", { class: "gvp-stage" }, this.fields, this.bar(), this.controls, this.curves),
      this.comparison(),
      this.live,
      this.numbers(),
      tag(
        "p",
        { class: "gvx-caption" },
        [spec.caption, ...spec.notes].filter(Boolean).join(" "),
        " ",
        tag("span", { class: "gvx-source" }, spec.provenance),
      ),
    );
    root.append(this.node);
  }

  bar() {
    const button = (text, click, name) =>
      tag("button", { type: "button", click, class: name }, text);
    this.play = button("Play", () => this.toggle(), "gvp-play");
    this.once = button("Step", () => this.single());
    this.back = button("Reset", () => this.restart());
    this.pace = tag("select", {
      id: `${this.uid}-pace`,
      change: () => this.choose({ speed: this.pace.value }),
    });
    this.pace.append(...SPEEDS.map(([value, , text]) => tag("option", { value }, text)));
    this.count = tag("span", { class: "gvp-count" });
    const pace = tag("label", { for: this.pace.id }, "Speed ", this.pace);
    return tag("div", { class: "gvx-actions gvp-bar" }, this.play, this.once, this.back, pace, this.count);
  }

  comparison() {
    const { sliders, points } = this.spec;
    this.versus = tag("select", {
      id: `${this.uid}-vs`,
      change: () => this.compare(Number(this.versus.value)),
    });
    this.versus.append(
      tag("option", { value: -1 }, "nothing"),
      ...sliders.map((s, i) => tag("option", { value: i }, `another ${s.label}`)),
    );
    const row = tag(
      "div",
      { class: "gvx-actions" },
      tag("label", { for: this.versus.id }, "Compare with ", this.versus),
    );
    const more = points.find((set) => set.optional);
    if (more) {
      const box = tag("input", {
        type: "checkbox",
        change: () => {
          this.tests = box.checked;
          this.later();
        },
      });
      row.append(tag("label", { class: "gvp-check" }, box, ` ${more.label} (hollow)`));
    }
    this.told = tag("span", { role: "status" });
    if (this.address)
      row.append(
        tag("button", { type: "button", click: () => this.copy() }, "Copy link"),
        this.told,
      );
    return row;
  }

  numbers() {
    this.table = tag("table", { class: "gvx-table" });
    const scroll = tag("div", {
      class: "gvx-scroll",
      tabindex: 0,
      role: "region",
      "aria-label": `Data table: ${this.spec.title}`,
    });
    scroll.append(this.table);
    this.details = tag(
      "details",
      { toggle: () => this.tabulate() },
      tag("summary", {}, "Data table"),
      scroll,
    );
    return this.details;
  }

  /** Fields and sliders for one run, or for two that differ in one slider. */
  arrange() {
    const { spec, state } = this;
    if (state.other && this.runs.length < 2)
      this.runs.push(new Run(spec, this.module, this.data));
    if (!state.other) this.runs.length = 1;
    this.pictures = this.runs.map((run, k) => new Field(this, run, "AB"[k]));
    this.fields.replaceChildren(...this.pictures.map((f) => f.node));
    this.node.classList.toggle("gvp-two", this.runs.length > 1);
    this.sliders = [];
    const add = (control, i, key, suffix, choose) => {
      const slider = new Steps(control, `${this.uid}-${key}${i}`, choose, suffix);
      this.sliders.push({ slider, i, second: key === "b" });
    };
    spec.sliders.forEach((control, i) => {
      const both = state.other?.which === i;
      add(control, i, "a", both ? " (A)" : "", (pick) =>
        this.choose({ picks: state.picks.map((p, k) => (k === i ? pick : p)) }),
      );
      if (both)
        add(control, i, "b", " (B)", (pick) => this.choose({ other: { which: i, pick } }));
    });
    this.controls.replaceChildren(...this.sliders.map(({ slider }) => slider.node));
    this.versus.value = state.other?.which ?? -1;
    this.pace.value = state.speed;
    this.show();
    this.resize();
  }

  show() {
    for (const { slider, i, second } of this.sliders)
      slider.show(second ? this.state.other.pick : this.state.picks[i]);
  }

  /** The slider positions of run A (0) or B (1). */
  picks(which) {
    const { picks, other } = this.state;
    return which && other ? picks.map((p, i) => (i === other.which ? other.pick : p)) : picks;
  }

  // ---- what the reader does

  /** Every change of sliders and speed goes through here. */
  choose(change) {
    const before = [this.picks(0), this.picks(1)];
    Object.assign(this.state, change);
    this.show();
    this.runs.forEach((run, which) => {
      const moved = this.picks(which).flatMap((p, i) => (p === before[which][i] ? [] : [i]));
      if (moved.some((i) => this.spec.sliders[i].restarts)) this.stale = true;
      else if (moved.length) {
        run.turn(this.picks(which));
        run.changed();
      }
    });
    this.keep();
    this.later();
  }

  keep() {
    if (this.address) this.address.write(this.state);
    else {
      this.model.set("picks", [...this.state.picks]);
      this.model.save_changes();
    }
  }

  compare(which) {
    const { sliders } = this.spec,
      { picks } = this.state;
    if (which < 0) this.state.other = null;
    else {
      const last = sliders[which].values.length - 1;
      // Some other value at once: one that is far from the present one.
      this.state.other = { which, pick: picks[which] > last / 2 ? 0 : last };
    }
    this.arrange();
    this.restart();
    this.keep();
    this.tell(which < 0 ? "One run." : `Two runs that differ in ${sliders[which].label}.`);
  }

  toggle() {
    if (this.runs.some((r) => r.stopped)) return;
    this.playing = !this.playing;
    this.due = 0;
    this.last = performance.now();
    this.play.textContent = this.playing ? "Pause" : "Play";
    this.tell(this.playing ? "Training." : `Paused. ${this.words()}`);
    this.later();
  }

  single() {
    if (this.playing) this.toggle();
    this.advance(1, Infinity);
    this.tell(this.words());
    this.later();
  }

  /** All runs at step 0, with the first weights of the sliders' positions. */
  restart() {
    this.stale = false;
    this.alarm.hidden = true;
    this.runs.forEach((run, which) => run.start(this.picks(which)));
    for (const button of [this.play, this.once]) button.disabled = false;
    this.later();
  }

  async copy() {
    const link = this.address.link(this.state);
    try {
      await navigator.clipboard.writeText(link);
      this.told.replaceChildren("Link copied.");
    } catch {
      // no clipboard without https or permission: show the link to be copied by hand
      const box = tag("input", { readonly: true, value: link, "aria-label": "Link to this setting" });
      this.told.replaceChildren(box);
      box.select();
    }
  }

  // ---- time

  /** Trains every run by as many steps, so that they stay side by side. */
  advance(count, milliseconds) {
    const [first, second] = this.runs;
    const end = performance.now() + milliseconds / this.runs.length;
    const done = first.advance(count, end);
    if (second) second.advance(Math.max(0, first.step - second.step), Infinity);
    const stopped = this.runs.findIndex((r) => r.stopped);
    if (stopped >= 0) this.halt(stopped);
    return done;
  }

  halt(which) {
    const { step } = this.runs[which].stopped;
    const name = this.runs.length > 1 ? `Run ${"AB"[which]}` : "The run";
    this.playing = false;
    this.play.textContent = "Play";
    for (const button of [this.play, this.once]) button.disabled = true;
    this.alarm.hidden = false;
    this.alarm.textContent =
      `${name} stopped at step ${step}: its loss is no longer a number, which happens ` +
      "when the steps are too large. Choose gentler settings and press Reset.";
  }

  /** One frame soon: trains if playing, redraws if anything changed. */
  later() {
    this.waiting ??= requestAnimationFrame((now) => this.frame(now));
  }

  frame(now) {
    this.waiting = null;
    if (this.closed || !this.seen) return;
    if (this.stale) this.restart();
    if (this.playing) this.train(now);
    const calm = this.calm.matches && this.playing; // then once a second is enough
    if (!calm || now - (this.drawn ?? 0) > 1000) {
      this.drawn = now;
      this.draw();
    }
    if (this.playing) this.later();
  }

  train(now) {
    const speed = SPEEDS.find(([key]) => key === this.state.speed)[1];
    const passed = Math.min(now - (this.last ?? now), 100);
    this.last = now;
    const room = clamp(FRAME - this.cost, LEAST, FRAME);
    if (speed === Infinity) {
      this.advance(1e9, room);
      return;
    }
    this.due += (speed * passed) / 1000;
    const whole = Math.floor(this.due);
    const done = whole ? this.advance(whole, room) : 0;
    this.due = done < whole ? 0 : this.due - whole; // too slow here: no debt
  }

  draw() {
    if (!this.width) return;
    const started = performance.now();
    this.runs.forEach((run) => run.measure());
    const colours = (this.colours ??= palette(this.node));
    this.pictures.forEach((field, which) => {
      field.draw(colours);
      const { label, texts } = this.spec.sliders[this.state.other?.which ?? 0] ?? {};
      const pick = this.picks(which)[this.state.other?.which ?? 0];
      const letter = ["A", "B (dashed)"][which];
      field.name.textContent = this.state.other ? `${letter}: ${label} ${texts[pick]}` : "";
      if (!this.playing) set(field.canvas, { "aria-label": this.describe(which) });
    });
    if (!this.playing || started - (this.charted ?? 0) > CHARTS) {
      this.charted = started;
      for (const chart of this.charts) chart.draw();
      this.count.textContent = `step ${this.runs[0].step.toLocaleString("en")}`;
    }
    if (this.details.open && !(started - (this.tabled ?? 0) < 500)) this.tabulate();
    // What a drawing takes, smoothed; the browser's own share is about as much.
    this.cost += 0.2 * (2 * (performance.now() - started) - this.cost);
  }

  // ---- words and numbers

  values(run) {
    return this.spec.panels.flatMap(({ series, format }) =>
      series
        .filter(({ name }) => !Number.isNaN(run.now[name]))
        .map(({ name, label }) => `${label} ${write(run.now[name], format)}`),
    );
  }

  words() {
    const parts = this.runs.map((run, which) => {
      const name = this.runs.length > 1 ? `${"AB"[which]}: ` : "";
      return name + this.values(run).join(", ");
    });
    return `Step ${this.runs[0].step}. ${parts.join("; ")}.`;
  }

  describe(which) {
    const run = this.runs[which];
    const setting = this.spec.sliders
      .map(({ label, texts }, i) => `${label} ${texts[this.picks(which)[i]]}`)
      .join(", ");
    return `${this.spec.alt} Step ${run.step}, ${setting}.`;
  }

  tell(text) {
    this.live.textContent = text;
  }

  /** At most a dozen recorded steps and the present one, for every run. */
  tabulate() {
    if (!this.details.open) return;
    this.tabled = performance.now();
    const series = this.spec.panels.flatMap(({ series, format }) =>
      series.map((s) => ({ ...s, format })),
    );
    const cell = (text, scope) => tag(scope ? "th" : "td", scope ? { scope } : {}, text);
    const several = this.runs.length > 1;
    const head = this.runs.flatMap((_, which) =>
      series.map(({ label }) => cell(several ? `${label} (${"AB"[which]})` : label, "col")),
    );
    const { steps } = this.runs[0],
      many = Math.min(12, steps.length);
    const at = Array.from({ length: many }, (_, k) =>
      Math.round((k * (steps.length - 1)) / Math.max(many - 1, 1)),
    );
    const said = (value, format) => (Number.isNaN(value) ? "–" : write(value, format));
    const row = (step, read) =>
      tag("tr", {}, cell(step.toLocaleString("en"), "row"), ...this.runs.flatMap((run) =>
        series.map(({ name, format }) => cell(said(read(run, name), format)))));
    this.table.replaceChildren(
      tag("caption", {}, this.spec.sliders.map(({ label, texts }, i) =>
        `${label} ${texts[this.state.picks[i]]}`).join(", ")),
      tag("thead", {}, tag("tr", {}, cell("step", "col"), ...head)),
      tag(
        "tbody",
        {},
        ...[...new Set(at)].map((k) => row(steps[k], (run, name) => run.values[name][k] ?? NaN)),
        ...(steps.at(-1) === this.runs[0].step
          ? []
          : [row(this.runs[0].step, (run, name) => run.now[name])]),
      ),
    );
  }

  // ---- surroundings

  resize() {
    const width = this.node.querySelector(".gvp-stage").clientWidth;
    if (!width) return; // not on the page yet, or hidden: the observer tells when it is
    this.width = width;
    const two = this.runs.length > 1,
      wide = width >= 560;
    const half = Math.floor((width - (wide ? 24 : 10)) / 2);
    const size = wide || two ? Math.min(half, 380) : Math.min(width, 420);
    for (const field of this.pictures) field.layout(size);
    const across = wide ? (two ? half : width - 24 - size) : width;
    for (const chart of this.charts) chart.layout(across);
    this.node.style.setProperty("--gvp-size", `${size}px`);
    this.node.classList.toggle("gvp-wide", wide);
    this.later();
  }

  watch() {
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.sizes = new ResizeObserver(() => {
      if (this.node.querySelector(".gvp-stage").clientWidth !== this.width) this.resize();
    });
    this.sizes.observe(this.node);
    this.near = new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      this.last = performance.now();
      if (this.seen) this.later();
    });
    this.near.observe(this.node);
    this.repaint = () => {
      this.colours = null;
      this.later();
    };
    this.theme = new MutationObserver(this.repaint);
    for (const node of [document.documentElement, document.body])
      this.theme.observe(node, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.repaint);
  }

  close() {
    this.closed = true;
    for (const observer of [this.sizes, this.near, this.theme]) observer.disconnect();
    this.scheme.removeEventListener("change", this.repaint);
    cancelAnimationFrame(this.waiting);
    clearTimeout(this.address?.timer);
  }
}

/** The page's present colours as numbers: background, text, the two classes. */
function palette(node) {
  const probe = tag("span");
  node.append(probe);
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe)
      .color.match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  };
  const found = {
    back: read("--gvx-bg"),
    text: read("--gvx-fg"),
    classes: [read("--gv-c1"), read("--gv-c2")],
  };
  probe.remove();
  return found;
}

/** A block of bytes of the state, which a static page deflates. */
async function bytes(model, name) {
  const { buffer, byteOffset, byteLength } = model.get(name);
  const whole = buffer.slice(byteOffset, byteOffset + byteLength);
  if (!model.get("deflated")) return whole;
  const plain = new Blob([whole]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(plain).arrayBuffer();
}

async function render({ model, el }) {
  const problem = "This browser lacks WebAssembly with SIMD, which training here needs.";
  if (!Program.supported()) {
    // On a static page the host says it, above the picture that it keeps.
    if (model.get("host")) throw new Error(problem);
    el.append(tag("p", { class: "gv-error", role: "alert" }, problem));
    return undefined;
  }
  const module = await WebAssembly.compile(await bytes(model, "wasm"));
  const view = new View(model, module, await bytes(model, "data"), el);
  return () => view.close();
}

export default { render };
