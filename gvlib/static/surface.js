// Surface: a loss surface that the reader turns, its map, and a slice through it.
// One module with the anywidget contract: under a kernel anywidget calls render(), on a
// static page host.js does. Drawn on plain canvases, far cells first.

import { NBSP, KEYS, Steps, clamp, match, nearest, remember, set, svg, tag } from "./parts.js";

// The picture's own space: the base is [-1, 1] x [-1, 1], the loss reaches from 0 to
// TALL, and contour lines lie below on the floor. The eye is AWAY from the middle.
const TALL = 1.05;
const FLOOR = -0.5;
const MIDDLE = 0.2;
const AWAY = 5.5;
const LIGHT = [-0.6, -0.35, 0.75]; // stands at the reader's left: right, back, up
const FINE = 6; // pixels of the map for each cell, along each side
const DRAGGED = 0.5; // degrees for a pixel: half a turn across a phone
const STEP = 3; // degrees between two slices
// What the arrow and other keys do to turn, tilt and zoom.
const TURNS = {
  ArrowLeft: [-6, 0, 1],
  ArrowRight: [6, 0, 1],
  ArrowUp: [0, 5, 1],
  ArrowDown: [0, -5, 1],
  "+": [0, 0, 1.15],
  "=": [0, 0, 1.15],
  "-": [0, 0, 1 / 1.15],
};

const range = (n, f = (i) => i) => Array.from({ length: n }, (_, i) => f(i));
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
const mix = (a, b, t) => a + t * (b - a);
// An end that plays no part must not make a hole: 0 times NaN is NaN.
const between = (a, b, t) => (t < 1e-9 ? a : t > 1 - 1e-9 ? b : mix(a, b, t));

function write(value, format) {
  if (Number.isNaN(value)) return "no number";
  if (format === "percent") return `${(100 * value).toFixed(1)}${NBSP}%`;
  if (value && Math.abs(value) < 1e-4)
    return value.toExponential(2).replace(/e-(\d)$/, "e-0$1"); // as Python does
  return String(Number(value.toPrecision(3)));
}

/** A canvas for sharp pixels; draws in CSS pixels. */
function sized(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// ---- the numbers --------------------------------------------------------------------

/** The part of a polygon of points [x, y, h] where `side` is not negative. */
function part(polygon, side) {
  const kept = [];
  polygon.forEach((p, k) => {
    const q = polygon[(k + 1) % polygon.length],
      a = side(p),
      b = side(q);
    if (a >= 0) kept.push(p);
    if (a >= 0 !== b >= 0) kept.push(p.map((v, c) => mix(v, q[c], a / (a - b))));
  });
  return kept.length > 2 ? kept : null;
}

/** Pieces of the line at height h on a cell: pairs of points [x, y, h]. */
function pieces(polygon, h) {
  const found = [];
  polygon.forEach((p, k) => {
    const q = polygon[(k + 1) % polygon.length];
    if (p[2] > h !== q[2] > h)
      found.push(p.map((v, c) => mix(v, q[c], (h - p[2]) / (q[2] - p[2]))));
  });
  return range(found.length >> 1, (k) => [found[2 * k], found[2 * k + 1]]);
}

/** One surface: losses as heights, 0 at the lowest and 1 at the highest shown. */
export class Field {
  constructor(spec, loss, others) {
    Object.assign(this, { spec, loss, others });
    const { scale, limits } = spec.height;
    this.log = scale === "log";
    [this.low, this.high] = this.log ? limits.map(Math.log10) : limits;
    this.columns = spec.a.values.length;
    this.rows = spec.b.values.length;
    this.heights = Float64Array.from(loss, (v) => this.height(v));
    const { colour } = spec,
      span = (v) => (v - colour.limits[0]) / (colour.limits[1] - colour.limits[0]);
    this.shades = colour ? Float64Array.from(others[colour.field], span) : this.heights;
  }

  height(loss) {
    const value = this.log ? Math.log10(loss) : loss;
    return (value - this.low) / (this.high - this.low);
  }

  value(height) {
    const value = mix(this.low, this.high, height);
    return this.log ? 10 ** value : value;
  }

  x(i) {
    return (2 * i) / (this.columns - 1) - 1;
  }

  y(j) {
    return (2 * j) / (this.rows - 1) - 1;
  }

  /** Column and row of the nearest computed point. */
  locate(x, y) {
    const at = (v, n) => clamp(Math.round(((v + 1) / 2) * (n - 1)), 0, n - 1);
    return [at(x, this.columns), at(y, this.rows)];
  }

  /** Between computed points, bilinear. */
  sample(values, x, y) {
    const u = clamp((x + 1) / 2, 0, 1) * (this.columns - 1),
      v = clamp((y + 1) / 2, 0, 1) * (this.rows - 1);
    const i = Math.min(Math.floor(u + 1e-9), this.columns - 2),
      j = Math.min(Math.floor(v + 1e-9), this.rows - 2);
    const s = u - i,
      t = v - j,
      k = j * this.columns + i;
    const row = (at) => between(values[at], values[at + 1], s);
    return between(row(k), row(k + this.columns), t);
  }

  /** Once, when first shown: the cells [row][column], and contour lines by level. */
  make() {
    if (this.cells) return;
    const levels = this.spec.height.levels.map((v) => this.height(v));
    this.cells = range(this.rows - 1, (j) =>
      range(this.columns - 1, (i) => this.cell(i, j, levels)),
    );
    const all = this.cells.flat().filter(Boolean);
    this.contours = levels.map((h, k) => ({ h, lines: all.flatMap((c) => c.lines[k]) }));
  }

  /** A cell's polygon, lid where it is cut, contour lines, normal; null: a hole. */
  cell(i, j, levels) {
    const ring = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]]; // prettier-ignore
    const read = (values) => ring.map(([p, q]) => values[q * this.columns + p]);
    const h = read(this.heights),
      corners = ring.map(([p, q], k) => [this.x(p), this.y(q), h[k]]);
    if (h.some(Number.isNaN)) return null;
    const top = Math.max(...h),
      under = top <= 1 ? corners : part(corners, (p) => 1 - p[2]);
    const wx = 2 / (this.columns - 1),
      wy = 2 / (this.rows - 1);
    const slope = [
      (TALL * (h[1] + h[2] - h[0] - h[3])) / (2 * wx),
      (TALL * (h[2] + h[3] - h[0] - h[1])) / (2 * wy),
    ];
    const length = Math.hypot(...slope, 1);
    return {
      under,
      lid: top > 1 ? part(corners, (p) => p[2] - 1)?.map(([x, y]) => [x, y, 1]) : null,
      lines: levels.map((level) => pieces(corners, level)),
      normal: [-slope[0] / length, -slope[1] / length, 1 / length],
      mesh: [i % 5 ? [] : [[0, 3]], j % 5 ? [] : [[0, 1]]].flat().map((pair) => pair.map((k) => corners[k])),
      shade: mean(this.spec.colour ? read(this.shades) : (under ?? []).map((p) => p[2])),
      middle: raised([0, 1, 2].map((c) => mean(corners.map((p) => p[c])))),
    };
  }

  /** Points along the line through (x, y): wherever it crosses a cell's side. */
  slice(x, y, degrees) {
    const [dy, dx] = turned(degrees);
    const ends = [[x, dx], [y, dy]].flatMap(([p, d]) =>
      Math.abs(d) < 1e-9 ? [] : [[(-1 - p) / d, (1 - p) / d].sort((a, b) => a - b)],
    ); // prettier-ignore
    const first = Math.max(...ends.map((e) => e[0])),
      last = Math.min(...ends.map((e) => e[1]));
    const at = [first, 0, last];
    if (Math.abs(dx) > 1e-9) at.push(...range(this.columns, (i) => (this.x(i) - x) / dx));
    if (Math.abs(dy) > 1e-9) at.push(...range(this.rows, (j) => (this.y(j) - y) / dy));
    const inside = at.filter((t) => t >= first - 1e-9 && t <= last + 1e-9).sort((a, b) => a - b);
    const crossings = inside.filter((t, k) => !k || t - inside[k - 1] > 1e-6);
    // bilinear cells are curved along a slanting line: one point more in the middle
    const all = crossings.flatMap((t, k) => (k ? [(t + crossings[k - 1]) / 2, t] : [t]));
    const half = (axis) => (axis.limits[1] - axis.limits[0]) / 2;
    const unit = Math.hypot(dx * half(this.spec.a), dy * half(this.spec.b));
    return all.map((t) => {
      const [px, py] = [x + t * dx, y + t * dy];
      return {
        x: px,
        y: py,
        t: t * unit,
        h: this.sample(this.heights, px, py),
        others: this.others.map((values) => this.sample(values, px, py)),
      };
    });
  }
}

// ---- colours ------------------------------------------------------------------------

/** The page's present colours as numbers; `ramp(h)` is the one of a height. */
function palette(node) {
  const probe = tag("span");
  node.append(probe);
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  };
  const steps = range(9, (k) => read(`--gv-s${k + 1}`));
  const found = {
    back: read("--gvx-bg"),
    text: read("--gvx-fg"),
    muted: read("--gvx-muted"),
    line: read("--gvx-line"),
    font: getComputedStyle(node).fontFamily,
  };
  probe.remove();
  found.dark = found.text[1] > found.back[1];
  [found.contour, found.mesh] = [0.5, 0.12].map((alpha) => css(found.back, alpha));
  found.ramp = (h) => {
    if (Number.isNaN(h)) return found.muted; // no number to colour it by
    const at = clamp(h, 0, 1) * 8,
      k = Math.min(Math.floor(at), 7);
    return steps[k].map((c, i) => mix(c, steps[k + 1][i], at - k));
  };
  return found;
}

const css = (colour, alpha = 1) => `rgb(${colour.map(Math.round).join(" ")} / ${alpha})`;

// ---- the surface in 3-D -------------------------------------------------------------

class Relief {
  constructor(view) {
    this.view = view;
    this.canvas = tag("canvas", { role: "img" });
    this.scene = tag("canvas"); // all but the pins, kept while only the pointer moves
    this.node = tag(
      "div",
      {
        class: "gvs-relief",
        tabindex: 0,
        role: "application",
        "aria-roledescription": "picture to turn",
        "aria-label": "Surface in 3-D. Arrow keys turn it, plus and minus zoom, Home resets.",
        keydown: (e) => this.key(e),
        pointerdown: (e) => this.grab(e),
        pointermove: (e) => this.move(e),
        pointerup: (e) => this.let(e),
        pointercancel: () => (this.held = null),
        pointerleave: () => view.glance(null),
      },
      this.canvas,
    );
    // Not passive, so that the page stands still, but only once the reader is in here.
    this.node.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
  }

  layout(width, height) {
    Object.assign(this, { width, height });
    this.front = sized(this.canvas, width, height);
    this.back = sized(this.scene, width, height);
  }

  // ---- what the reader does

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const turn = TURNS[event.key];
    if (!turn && event.key !== "Home") return;
    event.preventDefault();
    event.stopPropagation();
    if (turn) this.view.turn(...turn);
    else this.view.turnBack();
  }

  wheel(event) {
    if (document.activeElement !== this.node || event.ctrlKey) return;
    event.preventDefault();
    this.view.turn(0, 0, Math.exp(-clamp(event.deltaY, -200, 200) / 600));
  }

  grab(event) {
    if (event.button !== 0) return;
    this.node.setPointerCapture(event.pointerId);
    this.held = { x: event.clientX, y: event.clientY, moved: false };
    this.view.glance(null);
  }

  move(event) {
    const { held } = this;
    if (!held) {
      if (event.pointerType === "mouse") this.view.glance(this.pick(event));
      return;
    }
    const dx = event.clientX - held.x,
      dy = event.clientY - held.y;
    // A tap is not quite still; a finger that goes up or down scrolls the page.
    const sideways = Math.abs(dx) > Math.max(6, Math.abs(dy));
    const begins = event.pointerType === "touch" ? sideways : Math.hypot(dx, dy) > 3;
    if (!held.moved && !begins) return;
    Object.assign(held, { x: event.clientX, y: event.clientY, moved: true });
    this.view.turn(-dx * DRAGGED, dy * DRAGGED, 1);
  }

  let(event) {
    const { held } = this;
    this.held = null;
    const found = held && !held.moved && this.pick(event);
    if (found) this.view.choose({ a: found.i, b: found.j });
  }

  /** The computed point that is seen nearest to the pointer. */
  pick(event) {
    if (!this.eye) return null;
    const box = this.canvas.getBoundingClientRect(),
      px = event.clientX - box.left,
      py = event.clientY - box.top;
    const { field } = this.view;
    let best = null,
      least = Infinity;
    for (let j = 0; j < field.rows; j++)
      for (let i = 0; i < field.columns; i++) {
        const h = field.heights[j * field.columns + i];
        if (!(h <= 1) || this.hidden(field.x(i), field.y(j))) continue;
        const [x, y, deep] = this.eye.project(field.x(i), field.y(j), h * TALL);
        const off = Math.hypot(x - px, y - py);
        // of several under the pointer, the one in front
        if (off < 14 && off + 30 * deep < least) {
          least = off + 30 * deep;
          best = { i, j };
        }
      }
    return best;
  }

  // ---- how it is drawn

  /** The projection for the present turn, tilt and zoom. */
  look() {
    const { turn, tilt, zoom } = this.view.state,
      { width, height } = this;
    const [st, ct] = turned(turn),
      [sp, cp] = turned(tilt);
    /** Right and up in perspective, and how far behind the middle. */
    const seen = (across, back, z) => {
      const deep = back * cp - (z - MIDDLE) * sp,
        scale = AWAY / (AWAY + deep);
      return [across * scale, ((z - MIDDLE) * cp + back * sp) * scale, deep];
    };
    // What the box takes at most while it turns: nothing pulses, nothing is cut off.
    const reach = Math.SQRT2,
      top = Math.max(...[reach, -reach].map((back) => seen(0, back, TALL)[1])),
      bottom = Math.min(...[reach, -reach].map((back) => seen(0, back, FLOOR)[1])),
      wide = seen(reach, 0, TALL)[0];
    const fit = Math.min((width - 36) / (2 * wide), (height - 24) / (top - bottom)),
      size = (fit * zoom) / 100;
    return {
      x: -AWAY * cp * st,
      y: -AWAY * cp * ct,
      z: MIDDLE + AWAY * sp,
      light: toward(LIGHT, st, ct),
      project: (x, y, z) => {
        const [right, up, deep] = seen(x * ct - y * st, x * st + y * ct, z);
        return [width / 2 + size * right, height / 2 - size * (up - (top + bottom) / 2), deep];
      },
    };
  }

  path(points) {
    const { context, eye } = this;
    context.beginPath();
    points.forEach((p, k) => {
      const [x, y] = eye.project(...p);
      if (k) context.lineTo(x, y);
      else context.moveTo(x, y);
    });
  }

  stroke(points, colour, width) {
    const { context } = this;
    this.path(points);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }

  draw() {
    const { front, width, height } = this;
    if (this.stale) this.paint();
    this.stale = false;
    front.clearRect(0, 0, width, height);
    front.drawImage(this.scene, 0, 0, width, height);
    this.context = front;
    this.pins();
  }

  paint() {
    const { width, height, view } = this,
      context = (this.context = this.back);
    this.eye = this.look();
    const { x, y } = view.point();
    const across = (px, py) => (py - y) * view.slope[0] - (px - x) * view.slope[1];
    // Cut open, the half on the reader's side of the slice is taken away.
    const far = -Math.sign(across(this.eye.x, this.eye.y)) || 1;
    this.behind = (px, py) => (view.state.open ? far * across(px, py) : 1);
    this.hidden = (px, py) => this.behind(px, py) < -1e-6;
    context.clearRect(0, 0, width, height);
    context.lineJoin = context.lineCap = "round";
    this.walls();
    this.floor();
    this.cells();
    if (view.state.open) this.face();
    this.names();
  }

  /** The far walls, with a line at each tick of the height, and their numbers. */
  walls() {
    const { context, eye, view } = this,
      { colours, field } = view,
      { ticks } = view.spec.height;
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]]; // prettier-ignore
    const far = corners.flatMap((p, k) => {
      const q = corners[(k + 1) % 4],
        out = [(p[0] + q[0]) / 2, (p[1] + q[1]) / 2];
      return out[0] * eye.x + out[1] * eye.y < 1 ? [[p, q]] : [];
    });
    for (const [p, q] of far) {
      const lines = ticks.map(([v]) => TALL * field.height(v)).map((z) => [[...p, z], [...q, z]]);
      lines.push(...[p, q].map((c) => [[...c, FLOOR], [...c, TALL]]));
      for (const line of lines) this.stroke(line, css(colours.line, 0.9), 1);
    }
    // Numbers stand where they are in nobody's way: at the leftmost upright.
    const across = (c) => eye.project(...c, 0)[0];
    const left = corners.reduce((a, b) => (across(a) < across(b) ? a : b));
    context.font = `12px ${colours.font}`;
    context.fillStyle = css(colours.muted);
    context.textAlign = "right";
    context.textBaseline = "middle";
    let last = Infinity;
    if (this.view.state.tilt < 75)
      for (const [v, text] of ticks) {
        const [px, py] = eye.project(...left, TALL * field.height(v));
        if (last - py < 15) continue;
        last = py;
        context.fillText(text, px - 7, py);
      }
  }

  /** The floor: its frame, the contour lines, and where the slice is. */
  floor() {
    const { context, eye, view } = this,
      { colours, field } = view;
    this.path([[-1, -1, FLOOR], [1, -1, FLOOR], [1, 1, FLOOR], [-1, 1, FLOOR]]);
    context.closePath();
    context.fillStyle = css(mix3(colours.back, colours.muted, colours.dark ? 0.1 : 0.06));
    context.fill();
    context.strokeStyle = css(colours.muted, 0.7);
    context.lineWidth = 1;
    context.stroke();
    for (const { h, lines } of field.contours) {
      context.beginPath();
      for (const [p, q] of lines) {
        context.moveTo(...eye.project(p[0], p[1], FLOOR).slice(0, 2));
        context.lineTo(...eye.project(q[0], q[1], FLOOR).slice(0, 2));
      }
      context.strokeStyle = view.spec.colour ? css(colours.muted) : css(colours.ramp(h), 0.85);
      context.lineWidth = 1.3;
      context.stroke();
    }
    const ends = [view.line[0], view.line.at(-1)].map((p) => [p.x, p.y, FLOOR]);
    this.stroke(ends, css(colours.text, 0.9), 1.4);
  }

  /** All cells, far ones first: nearer ones cover what they hide. */
  cells() {
    const { field, state } = this.view,
      { eye } = this;
    const order = (n, where) => {
      const off = (k) => Math.abs((2 * k + 1) / n - 1 - where);
      return range(n).sort((p, q) => off(q) - off(p));
    };
    const columns = order(field.columns - 1, eye.x),
      rows = order(field.rows - 1, eye.y);
    const late = state.open ? new Map() : this.late(columns, rows);
    rows.forEach((j, r) =>
      columns.forEach((i, c) => {
        const cell = field.cells[j][i];
        if (cell) this.cell(cell);
        for (const pair of late.get(r * columns.length + c) ?? []) this.curve(...pair);
      }),
    );
  }

  /** Pieces of the slice by the cell after which they are drawn: the next but one on
   * the reader's side, so that neighbours of their own cell do not cover them. */
  late(columns, rows) {
    const found = new Map();
    const rank = (list, v) => {
      const cell = clamp(Math.floor(((v + 1) / 2) * list.length), 0, list.length - 1);
      return Math.min(list.indexOf(cell) + 1, list.length - 1);
    };
    for (const [p, q] of this.view.steps()) {
      const key = rank(rows, (p.y + q.y) / 2) * columns.length + rank(columns, (p.x + q.x) / 2);
      if (!found.has(key)) found.set(key, []);
      found.get(key).push([p, q]);
    }
    return found;
  }

  /** A cell of the surface: what lies under the cut, with its lines, and the lid. */
  cell({ under, lid, lines, mesh, ...rest }) {
    const { context } = this,
      { colours, state } = this.view;
    const shown = (polygon) =>
      polygon && (state.open ? part(polygon, ([x, y]) => this.behind(x, y)) : polygon);
    const body = shown(under),
      top = shown(lid);
    if (body) {
      this.path(body.map(raised));
      context.closePath();
      context.fillStyle = context.strokeStyle = css(this.tint(rest));
      context.lineWidth = 0.8; // closes the seams between neighbours
      context.fill();
      context.stroke();
      const half = ([p, q], c) => (p[c] + q[c]) / 2;
      const drawn = lines.flat().filter((pair) => !this.hidden(half(pair, 0), half(pair, 1)));
      for (const pair of drawn) this.stroke(pair.map(raised), colours.contour, 1);
      if (under === body && !lid)
        for (const pair of mesh) this.stroke(pair.map(raised), colours.mesh, 0.8);
    }
    if (top) {
      this.path(top.map(([x, y]) => [x, y, TALL]));
      context.closePath();
      context.fillStyle = css(colours.muted, 0.28);
      context.fill();
    }
  }

  /** A cell's colour in the light that falls there. */
  tint({ normal, shade: tone, middle: [x, y, z] }) {
    const { eye } = this,
      colour = this.view.colours.ramp(tone);
    const sight = [eye.x - x, eye.y - y, eye.z - z];
    const above = dot(normal, sight) >= 0,
      lit = dot(normal, eye.light);
    // Seen from below it lies in its own shadow.
    const shade = above ? clamp(0.8 * (lit - 0.6), -0.42, 0.3) : -0.38;
    return mix3(colour, shade > 0 ? [255, 255, 255] : [0, 0, 0], Math.abs(shade));
  }

  curve(p, q) {
    if (!(p.h <= 1 && q.h <= 1)) return;
    const { colours } = this.view;
    const points = [p, q].map(({ x, y, h }) => [x, y, h * TALL + 0.012]);
    this.context.lineCap = "butt"; // no piece may cover the one before
    this.stroke(points, css(colours.back), 5);
    this.context.lineCap = "round";
    this.stroke(points, css(colours.text), 2.4);
  }

  /** Where the surface is cut open: layers from the floor up to the slice. */
  face() {
    const { context, eye, view } = this,
      { colours } = view;
    const [, bottom] = eye.project(0, 0, 0),
      [, top] = eye.project(0, 0, TALL);
    const layers = context.createLinearGradient(0, bottom, 0, Math.min(top, bottom - 1));
    const tone = (k) => (view.spec.colour ? colours.line : colours.ramp(k / 8).map((v) => v * 0.8));
    for (const k of range(9)) layers.addColorStop(k / 8, css(tone(k)));
    for (const [p, q] of view.steps()) {
      if (Number.isNaN(p.h + q.h)) continue;
      const [hp, hq] = [p, q].map((v) => Math.min(v.h, 1) * TALL);
      this.path([[p.x, p.y, FLOOR], [q.x, q.y, FLOOR], [q.x, q.y, hq], [p.x, p.y, hp]]);
      context.closePath();
      context.fillStyle = context.strokeStyle = layers;
      context.lineWidth = 0.8;
      context.fill();
      context.stroke();
    }
    for (const [p, q] of view.steps()) this.curve(p, q);
  }

  /** Named places, the chosen point, and the one under the pointer. */
  pins() {
    const { view } = this,
      { colours, field, peek } = view,
      { x, y } = view.point();
    for (const [name, a, b] of view.spec.marks)
      this.pin(name, ...view.place(a, b), 4.5, colours.back);
    this.pin("", x, y, 6, colours.text);
    if (peek) this.pin("", field.x(peek.i), field.y(peek.j), 4.5, colours.text);
  }

  pin(name, x, y, radius, fill) {
    const { context, eye } = this,
      { colours, field } = this.view;
    const h = field.sample(field.heights, x, y);
    if (!(h <= 1) || this.hidden(x, y)) return;
    const [px, py] = eye.project(x, y, h * TALL),
      seen = this.seen(x, y, h * TALL);
    context.beginPath();
    context.arc(px, py, radius, 0, 7);
    context.fillStyle = css(fill, seen ? 1 : 0.15);
    context.strokeStyle = css(fill === colours.back ? colours.text : colours.back, seen ? 1 : 0.7);
    context.lineWidth = 1.8;
    context.fill();
    context.stroke();
    if (seen) this.say(name, px, py - 15, 600);
  }

  /** Whether no other part of the surface stands between a place and the eye. */
  seen(x, y, z) {
    const { field } = this.view,
      { eye } = this;
    const way = [eye.x - x, eye.y - y, eye.z - z],
      length = Math.hypot(...way);
    for (let t = 0.06; t < 3; t += 0.04) {
      const [px, py, pz] = way.map((v, k) => [x, y, z][k] + (v * t) / length);
      if (Math.max(Math.abs(px), Math.abs(py)) > 1) return true;
      const h = field.sample(field.heights, px, py);
      if (h <= 1 && h * TALL > pz + 0.02 && !this.hidden(px, py)) return false;
    }
    return true;
  }

  say(text, x, y, weight, align = "center") {
    const { context } = this,
      { colours } = this.view;
    context.font = `${weight} 13px ${colours.font}`;
    context.textAlign = align;
    context.textBaseline = "middle";
    context.strokeStyle = css(colours.back, 0.85);
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.fillStyle = css(weight > 400 ? colours.text : colours.muted);
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }

  /** Words over the picture: the axes, and the slice's ends. */
  names() {
    const { eye, view } = this,
      { spec, line } = view;
    const [middle] = eye.project(0, 0, FLOOR);
    /** Beside the floor, not across it. */
    const outside = (text, x, y) =>
      this.say(text, x, y, 400, Math.abs(x - middle) < 12 ? "center" : x > middle ? "left" : "right");
    const near = [eye.x > 0 ? 1 : -1, eye.y > 0 ? 1 : -1];
    const axes = [["a", (v) => [v, near[1] * 1.1]], ["b", (v) => [near[0] * 1.1, v]]]; // prettier-ignore
    for (const [key, at] of axes) {
      const [low, high] = spec[key].limits;
      for (const [v, text] of [[-0.96, short(low)], [0, spec[key].label], [0.96, short(high)]])
        outside(text, ...eye.project(...at(v), FLOOR));
    }
    for (const [p, letter] of [[line[0], "P"], [line.at(-1), "Q"]]) {
      const z = Number.isNaN(p.h) ? FLOOR : Math.min(p.h, 1) * TALL;
      this.say(letter, ...eye.project(p.x * 1.06, p.y * 1.06, z).slice(0, 2), 700);
    }
  }
}

/** Sine and cosine of degrees. */
function turned(degrees) {
  const angle = (degrees * Math.PI) / 180;
  return [Math.sin(angle), Math.cos(angle)];
}

/** A direction given as (right, back, up) of the reader, in the surface's space. */
function toward([right, back, up], st, ct) {
  const length = Math.hypot(right, back, up);
  return [right * ct + back * st, back * ct - right * st, up].map((v) => v / length);
}

const raised = ([x, y, h]) => [x, y, h * TALL];
const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
const mix3 = (p, q, t) => p.map((v, k) => mix(v, q[k], t));
const short = (v) => String(Number(v.toPrecision(2)));

// ---- the map ------------------------------------------------------------------------

/** Heights from above, with contour lines, and the slice to be dragged. */
class Plan {
  constructor(view) {
    this.view = view;
    const { spec } = view;
    this.canvas = tag("canvas", { "aria-hidden": "true" });
    this.small = document.createElement("canvas");
    this.node = tag("div", { class: "gvs-plan" }, this.canvas);
    this.svg = svg(this.node, "svg", {
      class: "gvx-svg",
      role: "img",
      "aria-label": `Map of ${spec.height.label} with contour lines and the slice`,
    });
    this.axes = svg(this.svg, "g");
    this.over = svg(this.svg, "g");
    this.parts = {
      halo: svg(this.over, "path", { class: "gvs-halo" }),
      line: svg(this.over, "path", { class: "gvs-slice" }),
      marks: svg(this.over, "g"),
      ends: ["P", "Q"].map((letter) => this.end(letter)),
      peek: svg(this.over, "circle", { class: "gvs-peek", r: 5 }),
      grip: svg(this.over, "circle", { class: "gvs-grip", r: 18 }),
      point: svg(this.over, "circle", { class: "gvs-point", r: 6.5 }),
    };
    set(this.svg, {
      pointerdown: (e) => this.grab(e),
      pointermove: (e) => this.move(e),
      pointerup: () => (this.held = null),
      pointercancel: () => (this.held = null),
      pointerleave: () => view.glance(null),
    });
    // A finger on the point or an end moves it; elsewhere it may scroll the page.
    const stay = (e) => e.target.closest(".gvs-grip") && e.preventDefault();
    this.svg.addEventListener("touchstart", stay, { passive: false });
  }

  end(letter) {
    const group = svg(this.over, "g", { class: "gvs-end" });
    svg(group, "circle", { class: "gvs-grip", r: 18 });
    svg(group, "circle", { r: 9 });
    svg(group, "text", { y: 4, "text-anchor": "middle" }, letter);
    return group;
  }

  layout(width) {
    const { spec } = this.view;
    const box = (this.box = { left: 46, top: 10, right: width - 12 });
    box.bottom = box.top + box.right - box.left;
    const height = box.bottom + 40;
    set(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    const side = box.right - box.left;
    this.context = sized(this.canvas, side, side);
    Object.assign(this.canvas.style, { left: `${box.left}px`, top: `${box.top}px` });
    this.axes.replaceChildren();
    for (const [v, text] of thin(spec.a.ticks, side)) {
      const x = this.X(this.view.place(v, 0)[0]);
      svg(this.axes, "path", { class: "gvx-tick", d: `M${x} ${box.bottom}v5` });
      svg(this.axes, "text", { x, y: box.bottom + 18, "text-anchor": "middle" }, text);
    }
    for (const [v, text] of spec.b.ticks) {
      const y = this.Y(this.view.place(0, v)[1]);
      svg(this.axes, "path", { class: "gvx-tick", d: `M${box.left} ${y}h-5` });
      svg(this.axes, "text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, text);
    }
    const said = { x: box.right, y: box.bottom + 35, "text-anchor": "end" };
    svg(this.axes, "text", said, `→ ${spec.a.label}, ↑ ${spec.b.label}`);
    this.painted = null;
  }

  X(x) {
    return mix(this.box.left, this.box.right, (x + 1) / 2);
  }

  Y(y) {
    return mix(this.box.bottom, this.box.top, (y + 1) / 2);
  }

  draw() {
    const { view, parts } = this,
      { field, line, peek } = view;
    if (this.painted !== field || this.worn !== view.colours) this.paint();
    const d = `M${this.X(line[0].x)} ${this.Y(line[0].y)}L${this.X(line.at(-1).x)} ${this.Y(line.at(-1).y)}`;
    set(parts.halo, { d });
    set(parts.line, { d });
    const { x, y } = view.point();
    [line[0], line.at(-1)].forEach((p, k) => {
      // a little inside, where they hide no number of the axes
      const t = 0.08 / Math.max(Math.hypot(p.x - x, p.y - y), 0.16);
      set(parts.ends[k], {
        transform: `translate(${this.X(mix(p.x, x, t))} ${this.Y(mix(p.y, y, t))})`,
      });
    });
    for (const name of ["point", "grip"])
      set(parts[name], { cx: this.X(x), cy: this.Y(y) });
    set(parts.peek, {
      cx: peek && this.X(field.x(peek.i)),
      cy: peek && this.Y(field.y(peek.j)),
      visibility: peek ? "visible" : "hidden",
    });
    parts.marks.replaceChildren();
    for (const [name, a, b] of view.spec.marks) {
      const [px, py] = view.place(a, b);
      svg(parts.marks, "circle", { class: "gvs-mark", cx: this.X(px), cy: this.Y(py), r: 4.5 });
      const anchor = px > 0.7 ? "end" : "start";
      const at = { x: this.X(px) + (px > 0.7 ? -9 : 9), y: this.Y(py) - 8 };
      svg(parts.marks, "text", { ...at, class: "gvs-name", "text-anchor": anchor }, name);
    }
  }

  /** Colours and contour lines; only anew when surface, size or colours change. */
  paint() {
    const { view, context, box, small } = this,
      { field, colours } = view;
    Object.assign(this, { painted: field, worn: colours });
    const side = box.right - box.left,
      [wide, high] = [(field.columns - 1) * FINE, (field.rows - 1) * FINE];
    Object.assign(small, { width: wide, height: high });
    const image = new ImageData(wide, high);
    const cut = mix3(colours.back, colours.muted, 0.35);
    for (let j = 0; j < high; j++)
      for (let i = 0; i < wide; i++) {
        const x = (2 * i + 1) / wide - 1,
          y = 1 - (2 * j + 1) / high,
          h = field.sample(field.heights, x, y);
        if (Number.isNaN(h)) continue; // a hole shows the paper
        const colour = h > 1 ? cut : colours.ramp(view.spec.colour ? field.sample(field.shades, x, y) : h);
        image.data.set([...colour, 255], 4 * (j * wide + i));
      }
    small.getContext("2d").putImageData(image, 0, 0);
    context.clearRect(0, 0, side, side);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, side, side);
    context.strokeStyle = colours.contour;
    context.lineWidth = 1;
    const at = (p) => [((p[0] + 1) / 2) * side, ((1 - p[1]) / 2) * side];
    context.beginPath();
    for (const [p, q] of field.contours.flatMap((c) => c.lines)) {
      context.moveTo(...at(p));
      context.lineTo(...at(q));
    }
    context.stroke();
    this.holes(at);
  }

  /** A cross at every point that is no number. */
  holes(at) {
    const { context, view } = this,
      { field } = view;
    context.strokeStyle = css(view.colours.text);
    context.lineWidth = 1.4;
    context.beginPath();
    field.loss.forEach((v, k) => {
      if (!Number.isNaN(v)) return;
      const i = k % field.columns;
      const [x, y] = at([field.x(i), field.y((k - i) / field.columns)]);
      context.moveTo(x - 3, y - 3);
      context.lineTo(x + 3, y + 3);
      context.moveTo(x + 3, y - 3);
      context.lineTo(x - 3, y + 3);
    });
    context.stroke();
  }

  // ---- what the reader does

  /** The pointer's place in the picture's space. */
  place(event) {
    const corner = this.svg.getBoundingClientRect(),
      { box } = this;
    const share = (v, first, last) => clamp((2 * (v - first)) / (last - first) - 1, -1, 1);
    return [
      share(event.clientX - corner.left, box.left, box.right),
      share(event.clientY - corner.top, box.bottom, box.top),
    ];
  }

  grab(event) {
    if (event.button !== 0) return;
    this.svg.setPointerCapture(event.pointerId);
    const end = this.parts.ends.findIndex((group) => group.contains(event.target));
    this.held = { end };
    this.follow(event);
  }

  move(event) {
    if (this.held) this.follow(event);
    else if (event.pointerType === "mouse") {
      const [i, j] = this.view.field.locate(...this.place(event));
      this.view.glance({ i, j });
    }
  }

  /** Drags an end of the slice about the point, or the point. */
  follow(event) {
    const { view } = this,
      [x, y] = this.place(event);
    if (this.held.end < 0) {
      const [a, b] = view.field.locate(x, y);
      view.choose({ a, b });
      return;
    }
    const at = view.point(),
      side = this.held.end ? 1 : -1;
    if (Math.hypot(x - at.x, y - at.y) < 0.05) return;
    const degrees = (Math.atan2(side * (y - at.y), side * (x - at.x)) * 180) / Math.PI;
    const steps = Math.round(degrees / STEP);
    // Past the half turn P and Q change places, and so does the end that is held.
    if (steps < 0 || steps >= 180 / STEP) this.held.end = 1 - this.held.end;
    view.choose({ angle: (steps + 180 / STEP) % (180 / STEP) });
  }
}

/** Only as many ticks as have room for their text. */
function thin(ticks, room) {
  const step = Math.ceil((ticks.length * 46) / Math.max(room, 46));
  return ticks.filter((_, i) => i % step === 0);
}

// ---- the slice ----------------------------------------------------------------------

/** The loss (which: -1) or an accuracy along the slice, from P to Q. */
class Curve {
  constructor(view, title, which) {
    Object.assign(this, { view, title, which });
    this.value = tag("b");
    this.svg = svg(document.createElement("div"), "svg", {
      class: "gvx-svg gvs-curve",
      role: "img",
      "aria-label": `${title} along the slice from P to Q`,
      pointermove: (e) => this.hover(e),
      pointerdown: (e) => this.hover(e),
      pointerleave: () => view.glance(null),
    });
    this.axes = svg(this.svg, "g");
    this.window = svg(this.svg, "svg"); // cuts off what is above
    this.line = svg(this.window, "path", { class: `gvx-line gvx-s${which + 2}` });
    this.cursor = svg(this.svg, "path", { class: "gvx-cursor gvs-cursor" });
    this.dot = svg(this.svg, "circle", { class: "gvs-dot", r: 5 });
    this.node = tag("div", { class: "gvs-panel" }, tag("p", {}, title, " ", this.value), this.svg);
  }

  layout(width) {
    const height = Math.round(clamp(width * 0.42, 120, 170));
    this.box = { left: 46, right: width - 12, top: 8, bottom: height - 22 };
    set(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    const { left, right, top, bottom } = this.box;
    const inside = { x: left, y: top - 2, width: right - left, height: bottom - top + 4 };
    set(this.window, { ...inside, viewBox: Object.values(inside).join(" ") });
  }

  X(t) {
    const { line } = this.view;
    return mix(this.box.left, this.box.right, (t - line[0].t) / (line.at(-1).t - line[0].t));
  }

  Y(share) {
    return mix(this.box.bottom, this.box.top, share);
  }

  read(p) {
    return this.which < 0 ? p.h : p.others[this.which];
  }

  draw() {
    const { line } = this.view;
    this.frame();
    let d = "",
      pen = "M";
    for (const p of line) {
      const v = this.read(p);
      // far above the cut a line is as good as upright
      if (!Number.isNaN(v)) d += `${pen}${this.X(p.t).toFixed(1)} ${this.Y(Math.min(v, 9)).toFixed(1)}`;
      pen = Number.isNaN(v) ? "M" : "L";
    }
    set(this.line, { d });
    this.mark();
  }

  frame() {
    const { box, view, axes } = this,
      { line, field, spec } = view;
    axes.replaceChildren();
    const ticks =
      this.which < 0
        ? spec.height.ticks.map(([v, text]) => [field.height(v), text])
        : [0, 0.5, 1].map((v) => [v, `${100 * v}${NBSP}%`]);
    const gap = Math.ceil((16 * ticks.length) / (box.bottom - box.top));
    ticks.forEach(([share, text], k) => {
      if (k % gap) return;
      const y = this.Y(share);
      svg(axes, "path", { class: "gvx-grid", d: `M${box.left} ${y}H${box.right}` });
      svg(axes, "text", { x: box.left - 6, y: y + 4, "text-anchor": "end" }, text);
    });
    const y = box.bottom + 17,
      ends = [line[0].t, line.at(-1).t];
    svg(axes, "text", { x: box.left, y, class: "gvs-letter" }, "P");
    svg(axes, "text", { x: box.right, y, class: "gvs-letter", "text-anchor": "end" }, "Q");
    svg(axes, "text", { x: box.left + 14, y }, short(ends[0]));
    svg(axes, "text", { x: box.right - 14, y, "text-anchor": "end" }, short(ends[1]));
    const zero = this.X(0);
    if (Math.min(zero - box.left, box.right - zero) > 60)
      svg(axes, "text", { x: zero, y, "text-anchor": "middle" }, "0");
  }

  /** The chosen point, or the place on the slice that is under the pointer. */
  mark() {
    const { view, box } = this,
      p = view.along ?? view.line.reduce((a, b) => (Math.abs(a.t) < Math.abs(b.t) ? a : b));
    const x = this.X(p.t),
      v = this.read(p);
    set(this.cursor, { d: `M${x} ${box.top}V${box.bottom}` });
    const dot = { cx: x, cy: this.Y(v), visibility: "visible" };
    set(this.dot, v <= 1 ? dot : { visibility: "hidden" });
  }

  hover(event) {
    const { view, box } = this,
      { line } = view;
    const pixel = event.clientX - this.svg.getBoundingClientRect().left;
    const share = clamp((pixel - box.left) / (box.right - box.left), 0, 1);
    const at = nearest(line.map((p) => p.t), mix(line[0].t, line.at(-1).t, share));
    view.follow(line[at]);
  }
}

// ---- controls -----------------------------------------------------------------------

/** One of a few by radio buttons, of many by a list. */
function choice(names, id, choose) {
  if (names.length < 2) return { node: "", show() {} };
  if (names.length > 5) {
    const list = tag("select", { id, change: () => choose(list.selectedIndex) });
    list.append(...names.map((name) => tag("option", {}, name)));
    const node = tag("p", { class: "gvs-list" }, tag("label", { for: id }, "Surface "), list);
    return { node, show: (k) => (list.selectedIndex = k) };
  }
  const radios = names.map((_, k) => tag("input", { type: "radio", name: id, change: () => choose(k) }));
  const node = tag(
    "fieldset",
    {
      class: "gvs-choice",
      keydown: (e) => {
        const step = KEYS[e.key],
          at = radios.indexOf(document.activeElement);
        if (!step || at < 0) return;
        e.preventDefault();
        e.stopPropagation();
        const next = clamp(at + step, 0, radios.length - 1);
        radios[next].focus();
        choose(next);
      },
    },
    tag("legend", { class: "gvx-hidden" }, "Surface"),
    ...radios.map((radio, k) => tag("label", {}, radio, tag("span", {}, names[k]))),
  );
  return { node, show: (k) => (radios[k].checked = true) };
}

// ---- the state in the page's address ------------------------------------------------

class Address {
  constructor(id, controls, start) {
    Object.assign(this, { id, controls, start });
  }

  read(state) {
    const query = new URLSearchParams(location.search),
      said = [];
    for (const control of this.controls) {
      const text = query.get(`${this.id}.${control.name}`);
      if (text === null) continue;
      const [index, problem] = match(control, text);
      if (problem) said.push(problem);
      state[control.name] = index ?? state[control.name];
    }
    return said;
  }

  url(state) {
    const url = new URL(location.href);
    for (const { name, values } of this.controls) {
      const key = `${this.id}.${name}`;
      if (state[name] === this.start[name]) url.searchParams.delete(key);
      else url.searchParams.set(key, values[Math.round(state[name])]);
    }
    return url;
  }

  write(state) {
    remember(this.url(state));
  }

  link(state) {
    const url = this.url(state);
    url.hash = `gv-${this.id}`;
    return url.href;
  }
}

// ---- the whole ----------------------------------------------------------------------

class View {
  constructor(model, root) {
    const spec = (this.spec = model.get("spec"));
    Object.assign(this, { model, peek: null, along: null });
    this.uid = `gvs-${Math.random().toString(36).slice(2, 9)}`;
    this.fields = fields(spec, model.get("values"));
    this.state = { ...model.get("at") };
    this.controls = controls(spec);
    const host = model.get("host");
    this.address = host
      ? new Address(host.replace(/^gv-/, ""), Object.values(this.controls), spec.start)
      : null;
    const said = this.address ? this.address.read(this.state) : [];
    this.build(root);
    this.note.textContent = said.join(" ");
    this.note.hidden = !said.length;
    this.watch();
    this.change({});
    this.resize();
  }

  // ---- parts

  build(root) {
    const { spec, uid, controls } = this;
    this.relief = new Relief(this);
    this.plan = new Plan(this);
    this.curves = [spec.height.label, ...spec.others].map((label, k) => new Curve(this, label, k - 1));
    this.note = tag("p", { class: "gvx-note", role: "status", hidden: true });
    const names = spec.surfaces.map((s) => s.name);
    this.pick = choice(names, `${uid}-s`, (surface) => this.choose({ surface }));
    this.sliders = ["angle", "a", "b"].map((name) => {
      const slider = new Steps(controls[name], `${uid}-${name}`, (index) => this.choose({ [name]: index }));
      return { name, slider };
    });
    this.where = tag("p", { class: "gvx-where" });
    this.said = tag("p", { class: "gvs-said" });
    this.live = tag("p", { class: "gvx-hidden", "aria-live": "polite" });
    this.node = tag(
      "div",
      {
        class: "gvx gvs gv-surface",
        role: "group",
        "aria-label": spec.title,
        "data-lm-suppress-shortcuts": "true",
      },
      tag("p", { class: "gvx-title" }, spec.title),
      this.note,
      this.pick.node,
      tag(
        "div",
        { class: "gvs-stage" },
        tag("div", { class: "gvs-left" }, this.relief.node, this.buttons()),
        this.plan.node,
      ),
      this.key(),
      tag("div", { class: "gvx-controls" }, ...this.sliders.map(({ slider }) => slider.node)),
      this.where,
      tag("div", { class: "gvs-curves" }, ...this.curves.map((c) => c.node)),
      this.live,
      this.said,
      this.actions(),
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

  /** What can be done by dragging can also be done by pressing. */
  buttons() {
    const button = (text, name, click) =>
      tag("button", { type: "button", "aria-label": name, title: name, click }, text);
    const keys = [
      ["←", "Turn left", "ArrowLeft"],
      ["→", "Turn right", "ArrowRight"],
      ["↑", "Look from higher", "ArrowUp"],
      ["↓", "Look from lower", "ArrowDown"],
      ["−", "Smaller", "-"],
      ["+", "Larger", "+"],
    ];
    this.openBox = tag("input", {
      type: "checkbox",
      change: () => this.choose({ open: this.openBox.checked ? 1 : 0 }),
    });
    return tag(
      "div",
      { class: "gvs-buttons" },
      ...keys.map(([text, name, key]) => button(text, name, () => this.turn(...TURNS[key]))),
      tag("label", {}, this.openBox, " cut open"),
    );
  }

  /** What the colours mean, where they do not mean the height. */
  key() {
    const { colour, others } = this.spec;
    if (!colour) return "";
    const steps = range(9, (k) => `var(--gv-s${k + 1})`).join(",");
    const ends = colour.limits.map((v) => tag("span", {}, write(v, "percent")));
    return tag(
      "div",
      { class: "gvx-key" },
      `Colour: ${others[colour.field]}`,
      tag("div", { class: "gvx-bar", "aria-hidden": "true", style: `background: linear-gradient(90deg, ${steps})` }),
      tag("div", { class: "gvx-bar-ends" }, ...ends),
    );
  }

  actions() {
    this.told = tag("span", { role: "status" });
    const button = (text, click) => tag("button", { type: "button", click }, text);
    const row = tag("div", { class: "gvx-actions" });
    if (this.address) row.append(button("Copy link to this view", () => this.copy()));
    row.append(button("Reset", () => this.reset()), this.told);
    return row;
  }

  numbers() {
    this.table = tag("table", { class: "gvx-table" });
    const label = `Data table: ${this.spec.title}`;
    const box = { class: "gvx-scroll", tabindex: 0, role: "region", "aria-label": label };
    this.details = tag(
      "details",
      { toggle: () => this.tabulate() },
      tag("summary", {}, "Data table"),
      tag("div", box, this.table),
    );
    return this.details;
  }

  // ---- places

  /** Coordinates in the picture's space. */
  place(a, b) {
    const { spec } = this;
    const share = (v, [low, high]) => (2 * (v - low)) / (high - low) - 1;
    return [share(a, spec.a.limits), share(b, spec.b.limits)];
  }

  /** The chosen point in the picture's space. */
  point() {
    return { x: this.field.x(this.state.a), y: this.field.y(this.state.b) };
  }

  /** The slice from point to point, as pairs. */
  steps() {
    return this.line.slice(1).map((q, k) => [this.line[k], q]);
  }

  // ---- what the reader does

  /** Every change of the state goes through here. */
  choose(change) {
    if (Object.entries(change).every(([key, v]) => this.state[key] === v)) return;
    this.change(change);
    this.keep();
    this.announce();
  }

  change(change) {
    Object.assign(this.state, change);
    const { state } = this;
    this.peek = this.along = null;
    this.field = this.fields[state.surface];
    this.field.make();
    const { x, y } = this.point();
    this.slope = turned(state.angle * STEP).reverse();
    this.relief.stale = true;
    // At once: the next key counts from here, whether or not it is drawn by then.
    this.pick.show(state.surface);
    for (const { name, slider } of this.sliders) slider.show(state[name]);
    this.openBox.checked = Boolean(state.open);
    this.line = this.field.slice(x, y, state.angle * STEP);
    this.later();
  }

  turn(turn, tilt, zoom) {
    const { state } = this;
    this.choose({
      turn: (((state.turn + turn) % 360) + 360) % 360,
      tilt: clamp(state.tilt + tilt, 0, 90),
      zoom: clamp(state.zoom * zoom, 50, 300),
    });
  }

  turnBack() {
    const { turn, tilt, zoom } = this.spec.start;
    this.choose({ turn, tilt, zoom });
  }

  reset() {
    this.choose({ ...this.spec.start });
    this.note.hidden = true;
  }

  /** Writes the state down once the hand rests: into the address, or to the kernel. */
  keep() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      if (this.relief.held || this.plan.held) this.keep();
      else if (this.address) this.address.write(this.state);
      else {
        this.model.set("at", { ...this.state });
        this.model.save_changes();
      }
    }, 150);
  }

  /** The kernel, or another view of the same widget, has changed something. */
  taken() {
    this.change(this.model.get("at"));
  }

  async copy() {
    const link = this.address.link(this.state);
    try {
      await navigator.clipboard.writeText(link);
      this.told.replaceChildren("Link copied.");
    } catch {
      // no clipboard without https or permission: show the link to be copied by hand
      const box = tag("input", { readonly: true, value: link, "aria-label": "Link to this view" });
      this.told.replaceChildren(box);
      box.select();
    }
  }

  /** The computed point under the pointer, or null. */
  glance(peek) {
    if (this.peek?.i === peek?.i && this.peek?.j === peek?.j && !this.along) return;
    Object.assign(this, { peek, along: null });
    this.later();
  }

  /** A place along the slice is under the pointer. */
  follow(along) {
    const [i, j] = this.field.locate(along.x, along.y);
    Object.assign(this, { peek: { i, j }, along });
    this.later();
  }

  // ---- drawing

  later() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.draw();
    });
  }

  draw() {
    if (!this.width || this.closed) return;
    this.colours ??= palette(this.node);
    const { state, spec } = this;
    this.relief.draw();
    this.plan.draw();
    for (const curve of this.curves) curve.draw();
    const { name, said } = spec.surfaces[state.surface];
    this.said.textContent = said;
    set(this.relief.canvas, { "aria-label": [spec.alt, name].filter(Boolean).join(" Shown: ") });
    this.say();
    if (this.details.open) this.tabulate();
  }

  /** Loss and accuracies at a computed point, or between on the slice. */
  values({ i, j }) {
    const { field } = this,
      k = j * field.columns + i;
    if (this.along) return [field.value(this.along.h), ...this.along.others];
    return [field.loss[k], ...field.others.map((values) => values[k])];
  }

  say() {
    const { spec, state } = this,
      at = this.peek ?? { i: state.a, j: state.b };
    const place = ["a", "b"].map((key, k) => `${spec[key].label} ${spec[key].texts[k ? at.j : at.i]}`);
    const how = this.along ? "On the slice near" : this.peek ? "Under the pointer:" : "At";
    const name = spec.surfaces[state.surface].name;
    this.where.textContent = `${how} ${place.join(", ")}${name ? ` · ${name}` : ""}`;
    const texts = this.values(at).map((v, k) => write(v, k && "percent"));
    this.curves.forEach((curve, k) => (curve.value.textContent = texts[k]));
    const read = this.curves.map((curve, k) => `${curve.title} ${texts[k]}`);
    this.words = `${this.where.textContent}: ${read.join(", ")}.`;
  }

  /** Tells screen readers once the hand rests. */
  announce() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const { turn, tilt } = this.state;
      const seen = `Seen from ${Math.round(tilt)}° above, turned by ${Math.round(turn)}°.`;
      this.live.textContent = `${this.words} Slice at ${this.state.angle * STEP}°. ${seen}`;
    }, 600);
  }

  /** Loss and accuracy along both axes through the point. */
  tabulate() {
    if (!this.details.open) return;
    const { spec, state, field } = this;
    const cell = (text, scope) => tag(scope ? "th" : "td", scope ? { scope } : {}, text);
    const fields = [spec.height.label, ...spec.others];
    const body = (key, n, index) => {
      const some = [...new Set(range(11, (k) => Math.round((k * (n - 1)) / 10)))];
      const rows = some.map((i) => {
        const k = index(i),
          shares = field.others.map((values) => write(values[k], "percent"));
        const texts = [write(field.loss[k]), ...shares].map((text) => cell(text));
        return tag("tr", {}, cell(spec[key].texts[i], "row"), ...texts);
      });
      const head = [spec[key].label, ...fields].map((text) => cell(text, "col"));
      return tag("tbody", {}, tag("tr", {}, ...head), ...rows);
    };
    const at = ["a", "b"].map((key) => `${spec[key].label} ${spec[key].texts[state[key]]}`);
    const name = spec.surfaces[state.surface].name;
    const said = [name, `along both axes through ${at.join(", ")}`].filter(Boolean);
    this.table.replaceChildren(
      tag("caption", {}, said.join(" · ")),
      body("a", field.columns, (i) => state.b * field.columns + i),
      body("b", field.rows, (j) => j * field.columns + state.a),
    );
  }

  // ---- surroundings

  resize() {
    const width = this.node.querySelector(".gvs-stage").clientWidth;
    if (!width) return; // not on the page yet, or hidden: the observer tells when it is
    this.width = width;
    const wide = width >= 620;
    this.node.classList.toggle("gvs-wide", wide);
    const map = wide ? Math.round(clamp(width * 0.42, 250, 400)) : Math.min(width, 380);
    const across = wide ? width - map - 16 : width;
    this.relief.layout(across, Math.round(clamp(across * 0.8, 240, 430)));
    this.relief.stale = true;
    this.plan.layout(map);
    const n = wide ? this.curves.length : 1;
    for (const curve of this.curves) curve.layout(Math.floor((width - 24 * (n - 1)) / n));
    this.node.style.setProperty("--gvs-columns", n);
    this.later();
  }

  watch() {
    this.sizes = new ResizeObserver(() => {
      if (this.node.querySelector(".gvs-stage").clientWidth !== this.width) this.resize();
    });
    this.sizes.observe(this.node);
    this.repaint = () => {
      this.colours = null;
      this.relief.stale = true;
      this.later();
    };
    this.theme = new MutationObserver(this.repaint);
    for (const node of [document.documentElement, document.body])
      this.theme.observe(node, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.repaint);
    this.onChange = () => this.taken();
    this.model.on("change:at", this.onChange);
  }

  close() {
    this.closed = true;
    for (const observer of [this.sizes, this.theme]) observer.disconnect();
    this.scheme.removeEventListener("change", this.repaint);
    this.model.off("change:at", this.onChange);
    cancelAnimationFrame(this.waiting);
    for (const timer of [this.resting, this.telling]) clearTimeout(timer);
  }
}

/** The numbers that came as bytes, a Field for each surface. */
function fields(spec, view) {
  const size = spec.a.values.length * spec.b.values.length,
    kinds = 1 + spec.others.length,
    expected = spec.surfaces.length * kinds * size;
  if (view.byteLength !== 4 * expected)
    throw new Error(`${view.byteLength / 4} numbers came, expected ${expected}`);
  const all = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  const block = (k) => all.subarray(k * size, (k + 1) * size);
  return spec.surfaces.map((_, s) => {
    const [loss, ...others] = range(kinds, (k) => block(s * kinds + k));
    return new Field(spec, loss, others);
  });
}

/** What the state is made of, each with the values that an address may ask for. */
function controls(spec) {
  const counted = (name, label, n, unit, step = 1) => {
    const values = range(n, (k) => k * step);
    return { name, label, values, texts: values.map((v) => `${v}${unit}`), numeric: true };
  };
  const names = spec.surfaces.map((s) => s.name);
  return {
    surface: { name: "surface", label: "the surface", values: names, texts: names, numeric: false },
    a: spec.a,
    b: spec.b,
    angle: counted("angle", "Slice angle", 180 / STEP, "°", STEP),
    turn: counted("turn", "turn", 360, "°"),
    tilt: counted("tilt", "tilt", 91, "°"),
    zoom: counted("zoom", "zoom", 301, `${NBSP}%`),
    open: counted("open", "open", 2, ""),
  };
}

function render({ model, el }) {
  const view = new View(model, el);
  return () => view.close();
}

export default { render };
