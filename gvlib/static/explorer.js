// Explorer: moves through the really computed points of a sweep.
// One module with the anywidget contract: under a kernel anywidget calls render(), on a
// static page host.js does. All text goes in as text; nothing is fetched.

import { NBSP, KEYS, clamp, match, nearest, remember, set, svg, tag } from "./parts.js";

const clear = (node) => node.replaceChildren();
const tone = (k) => `gvx-s${(k % 8) + 1}`;

// ---- the numbers --------------------------------------------------------------------

class Sweep {
  constructor(model) {
    this.spec = model.get("spec");
    this.sizes = this.spec.cursors.map((c) => c.values.length);
    this.points = this.sizes.reduce((a, b) => a * b, 1);
    this.block = this.spec.series.length * this.spec.stats * this.points;
    const view = model.get("values"),
      expected = this.block * this.spec.n.length;
    if (view.byteLength !== 4 * expected)
      throw new Error(`${view.byteLength / 4} numbers came, expected ${expected}`);
    this.values = new Float32Array(
      view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength),
    );
    this.take(model);
  }

  /** What the kernel has computed since. */
  take(model) {
    this.spec = model.get("spec");
    this.computed = (model.get("computed") ?? []).map((entry) => ({
      ...entry,
      values: Float32Array.from(entry.values.flat(2), (v) => v ?? NaN),
    }));
  }

  /** The block of a setting: slider indices, or a computed one's number. */
  at({ picks, shown }) {
    if (shown >= 0) return this.computed[shown];
    const { sliders, n, ended } = this.spec;
    const k = sliders.reduce((sum, s, i) => sum * s.values.length + picks[i], 0);
    return {
      values: this.values.subarray(k * this.block, (k + 1) * this.block),
      n: n[k],
      ended: ended[k],
      texts: sliders.map((s, i) => s.texts[picks[i]]),
    };
  }

  /** Mean (0), low (1) or high (2) of one series, at every point. */
  read(block, series, stat = 0) {
    if (stat >= this.spec.stats) return null;
    const start = (series * this.spec.stats + stat) * this.points;
    const values = block.values.subarray(start, start + this.points);
    return Number.isNaN(values[0]) ? null : values;
  }

  index(at) {
    return at.length === 1 ? at[0] : at[1] * this.sizes[0] + at[0];
  }

  name(block) {
    return this.spec.sliders.map((s, i) => `${s.label} ${block.texts[i]}`).join(", ");
  }

  place(at) {
    return this.spec.cursors.map((c, i) => `${c.label} ${c.texts[at[i]]}`).join(", ");
  }

  write(value) {
    if (this.spec.value.format === "percent")
      return `${(100 * value).toFixed(1)}${NBSP}%`;
    return String(Number(value.toPrecision(3)));
  }

  count({ n, ended }, at) {
    const { over } = this.spec;
    if (!over) return "";
    if (n === 1) return `1 ${over}: no interval`;
    const held = ended.filter((last) => last < at[0]).length;
    return (
      `${n} ${over}s` +
      (held ? `, ${held} of them ended earlier (last value held)` : "")
    );
  }

  /** Everything at one point: a list of {label, mean, span}, as text. */
  rows(block, at) {
    const i = this.index(at);
    return this.spec.series.map(({ label }, k) => {
      const [mean, low, high] = [0, 1, 2].map((stat) => this.read(block, k, stat)?.[i]);
      return { label, mean: this.write(mean), span: this.span(block, low, high) };
    });
  }

  /** An interval as text; equal values have none, and are said to be equal. */
  span({ n }, low, high) {
    if (low === undefined || n === 1) return null;
    if (low === high) return `all ${n} equal`;
    return `95${NBSP}% interval ${this.write(low)} to ${this.write(high)}`;
  }

  words(block, at) {
    const values = this.rows(block, at).map(
      ({ label, mean, span }) => `${label} ${mean}` + (span ? ` (${span})` : ""),
    );
    const where = [this.name(block), this.place(at)].filter(Boolean).join(", ");
    return (
      [`${where}: ${values.join(", ")}`, this.count(block, at)]
        .filter(Boolean)
        .join("; ") + "."
    );
  }
}

// ---- the state in the page's address ------------------------------------------------

class Address {
  constructor(id, controls) {
    this.keys = controls.map((c) => `${id}.${c.name}`);
    this.id = id;
    this.controls = controls;
  }

  /** Indices that the address asks for (null: nothing), and what had to be changed. */
  read() {
    const query = new URLSearchParams(location.search),
      said = [];
    const indices = this.controls.map((control, k) => {
      const text = query.get(this.keys[k]);
      if (text === null) return null;
      const [index, problem] = match(control, text);
      if (problem) said.push(problem);
      return index;
    });
    return { indices, said };
  }

  url(indices) {
    const url = new URL(location.href);
    this.keys.forEach((key, k) => {
      if (indices) url.searchParams.set(key, this.controls[k].values[indices[k]]);
      else url.searchParams.delete(key);
    });
    return url;
  }

  write(indices) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      remember(this.url(indices));
    }, 150);
  }

  link(indices) {
    const url = this.url(indices);
    url.hash = `gv-${this.id}`;
    return url.href;
  }
}

// ---- scales and axes ----------------------------------------------------------------

/** Value -> pixel, held inside [first, last]; `.invert` goes back. */
function scale({ limits, scale: kind }, first, last) {
  const turn = kind === "log" ? Math.log10 : Number;
  const [low, high] = limits.map(turn);
  const place = (value) => {
    const share = kind === "log" && value <= 0 ? 0 : (turn(value) - low) / (high - low);
    return first + (last - first) * clamp(share, 0, 1);
  };
  place.invert = (pixel) => {
    const value = low + ((pixel - first) / (last - first)) * (high - low);
    return kind === "log" ? 10 ** value : value;
  };
  return place;
}

/** Only as many ticks as have room for their text. */
function thin(ticks, room) {
  const step = Math.ceil((ticks.length * 46) / Math.max(room, 46));
  return ticks.filter((_, i) => i % step === 0);
}

function axes(parent, box, x, y, X, Y) {
  for (const [value, text] of y.ticks) {
    svg(parent, "path", {
      class: "gvx-grid",
      d: `M${box.left} ${Y(value)}H${box.right}`,
    });
    svg(
      parent,
      "text",
      { x: box.left - 8, y: Y(value) + 4, "text-anchor": "end" },
      text,
    );
  }
  for (const [value, text] of thin(x.ticks, box.right - box.left)) {
    svg(parent, "path", { class: "gvx-tick", d: `M${X(value)} ${box.bottom}v5` });
    svg(
      parent,
      "text",
      { x: X(value), y: box.bottom + 19, "text-anchor": "middle" },
      text,
    );
  }
  svg(parent, "path", {
    class: "gvx-axis",
    d: `M${box.left} ${box.bottom}H${box.right}`,
  });
}

/** Labels' heights, moved until they are a line of text apart and inside the box. */
function apart(places, low, high, gap = 17) {
  const order = places.map((_, k) => k).sort((a, b) => places[a] - places[b]);
  const moved = [...places];
  let last = -Infinity;
  for (const k of order)
    last = moved[k] = Math.max(clamp(places[k], low, high), last + gap);
  const over = Math.max(0, last - high);
  return moved.map((place) => place - over);
}

/** Moves the cursor to where the pointer is held; a mouse that only passes by peeks. */
function follow(node, locate, view) {
  set(node, {
    pointerdown: (e) => {
      if (e.button === 0) {
        node.setPointerCapture(e.pointerId);
        view.choose({ at: locate(e) });
      }
    },
    pointermove: (e) => {
      if (e.buttons & 1) view.choose({ at: locate(e) });
      else if (e.pointerType === "mouse") view.glance(locate(e));
    },
    pointerleave: () => view.glance(null),
  });
}

// ---- lines and bands ----------------------------------------------------------------

class LinePlot {
  constructor(view, parent) {
    this.view = view;
    const { alt } = view.sweep.spec;
    this.svg = svg(parent, "svg", { class: "gvx-svg", role: "img", "aria-label": alt });
    this.layers = ["axes", "bands", "ghosts", "lines", "ends", "cursor"].reduce(
      (all, name) => ({ ...all, [name]: svg(this.svg, "g") }),
      {},
    );
    const paths = (layer, kind) =>
      view.sweep.spec.series.map((_, k) =>
        svg(this.layers[layer], "path", { class: `${kind} ${tone(k)}` }),
      );
    this.bands = paths("bands", "gvx-band");
    this.ghosts = paths("ghosts", "gvx-ghost");
    this.lines = paths("lines", "gvx-line");
    follow(this.svg, (event) => this.locate(event), view);
  }

  layout(width) {
    const {
      cursors: [x],
      value,
      series,
    } = this.view.sweep.spec;
    const wide = (this.wide = width >= 520);
    const labels = Math.max(...series.map((s) => s.label.length)) * 7.2 + 18;
    const top = wide ? 30 : 30 + 18 * series.length;
    const height = Math.round(clamp(width * 0.5, 200 + top, 340));
    const box = (this.box = {
      left: 54,
      top,
      bottom: height - 24,
      right: width - (wide ? Math.min(labels, width / 3) : 10),
    });
    set(this.svg, { viewBox: `0 0 ${width} ${height}`, width, height });
    this.X = scale(x, box.left, box.right);
    this.Y = scale(value, box.bottom, box.top);
    clear(this.layers.axes);
    svg(this.layers.axes, "rect", {
      class: "gvx-paper",
      x: box.left,
      y: box.top,
      width: box.right - box.left,
      height: box.bottom - box.top,
    });
    axes(this.layers.axes, box, x, value, this.X, this.Y);
    svg(this.layers.axes, "text", { x: 0, y: 14, class: "gvx-name" }, value.label);
    this.xs = x.values.map((v) => this.X(v).toFixed(1));
    // The cursor's slider runs exactly below the axis: its thumb is 18 px wide.
    this.view.cursors[0].align(
      this.xs.map(Number),
      box.left - 9,
      width - box.right - 9,
    );
    this.draw();
  }

  draw() {
    const { view } = this,
      { sweep } = view;
    const block = sweep.at(view),
      before = view.before && sweep.at(view.before);
    sweep.spec.series.forEach((_, k) => {
      set(this.lines[k], { d: this.path(sweep.read(block, k)) });
      set(this.bands[k], {
        d: this.band(sweep.read(block, k, 1), sweep.read(block, k, 2)),
      });
      set(this.ghosts[k], { d: before ? this.path(sweep.read(before, k)) : "" });
    });
    this.name(block);
    this.mark(view.looking());
  }

  path(values) {
    return (
      "M" + this.xs.map((x, i) => `${x} ${this.Y(values[i]).toFixed(1)}`).join("L")
    );
  }

  band(low, high) {
    if (!low || !high) return "";
    const back = this.xs
      .map((x, i) => `${x} ${this.Y(low[i]).toFixed(1)}`)
      .reverse()
      .join("L");
    return `${this.path(high)}L${back}Z`;
  }

  /** Names the lines where they end or, on a narrow screen, above the picture. */
  name(block) {
    const { sweep } = this.view,
      { box, wide } = this;
    clear(this.layers.ends);
    const ends = sweep.spec.series.map((_, k) => this.Y(sweep.read(block, k).at(-1)));
    const texts = apart(ends, box.top, box.bottom - 6);
    sweep.spec.series.forEach(({ label }, k) => {
      svg(this.layers.ends, "circle", {
        class: tone(k),
        cx: box.right,
        cy: ends[k],
        r: 3.5,
      });
      const [x, y] = wide
        ? [box.right + 10, texts[k] + 4]
        : [box.left + 26, 32 + 18 * k];
      if (!wide)
        svg(this.layers.ends, "path", {
          class: `gvx-line ${tone(k)}`,
          d: `M${box.left} ${y - 4}h20`,
        });
      svg(this.layers.ends, "text", { x, y, class: "gvx-end" }, label);
    });
  }

  mark(at) {
    const { view, box } = this,
      x = this.xs[at[0]],
      block = view.sweep.at(view);
    clear(this.layers.cursor);
    svg(this.layers.cursor, "path", {
      class: "gvx-cursor",
      d: `M${x} ${box.top}V${box.bottom}`,
    });
    view.sweep.spec.series.forEach((_, k) => {
      svg(this.layers.cursor, "circle", {
        class: tone(k),
        cx: x,
        cy: this.Y(view.sweep.read(block, k)[at[0]]),
        r: 5,
      });
    });
  }

  locate(event) {
    const pixel = event.clientX - this.svg.getBoundingClientRect().left;
    return [nearest(this.xs.map(Number), pixel)];
  }
}

// ---- heat maps ----------------------------------------------------------------------

class ImagePlot {
  constructor(view, parent) {
    this.view = view;
    const { spec } = view.sweep;
    this.parent = tag("div", { class: "gvx-panels" });
    parent.append(this.parent);
    this.panels = spec.series.map(({ label }) => {
      const canvas = tag("canvas", {
        width: view.sweep.sizes[0],
        height: view.sweep.sizes[1],
        "aria-hidden": "true",
      });
      const box = tag("div", { class: "gvx-picture" }, canvas);
      const picture = svg(box, "svg", {
        class: "gvx-svg",
        role: "img",
        "aria-label": spec.series.length > 1 ? `${spec.alt} (${label})` : spec.alt,
      });
      const axes = svg(picture, "g"),
        cursor = svg(picture, "g");
      follow(picture, (event) => this.locate(event, picture), view);
      this.parent.append(tag("div", { class: "gvx-panel" }, tag("p", {}, label), box));
      return { canvas, picture, axes, cursor };
    });
    this.bar = tag("div", { class: "gvx-bar", "aria-hidden": "true" });
    this.ends = tag("div", { class: "gvx-bar-ends" });
    parent.append(
      tag("div", { class: "gvx-key" }, spec.value.label, this.bar, this.ends),
    );
  }

  layout(width) {
    const { spec, sizes } = this.view.sweep,
      many = this.panels.length;
    const columns = clamp(Math.floor(width / 250), 1, many);
    const across = Math.floor(Math.min(440, (width - 16 * (columns - 1)) / columns));
    this.parent.style.gridTemplateColumns = `repeat(${columns}, ${across}px)`;
    const [x, y] = spec.cursors.map((c) => ({ ...c, limits: edges(c.values) }));
    const box = (this.box = { left: 46, top: 8, right: across - 12 });
    const side = (box.right - box.left) / sizes[0];
    // Square cells, but no picture much higher or flatter than it is wide.
    box.bottom =
      box.top +
      Math.round(
        clamp(
          side * sizes[1],
          (box.right - box.left) / 2,
          (box.right - box.left) * 1.3,
        ),
      );
    const flip = spec.origin === "upper";
    this.X = scale(x, box.left, box.right);
    this.Y = flip ? scale(y, box.top, box.bottom) : scale(y, box.bottom, box.top);
    for (const panel of this.panels) this.frame(panel, across, x, y);
    this.draw();
  }

  frame({ canvas, picture, axes: layer }, across, x, y) {
    const { box } = this,
      { points } = this.view.sweep.spec;
    set(picture, {
      viewBox: `0 0 ${across} ${box.bottom + 42}`,
      width: across,
      height: box.bottom + 42,
    });
    Object.assign(canvas.style, {
      left: `${box.left}px`,
      top: `${box.top}px`,
      width: `${box.right - box.left}px`,
      height: `${box.bottom - box.top}px`,
    });
    clear(layer);
    axes(layer, box, x, { ticks: [] }, this.X, this.Y);
    for (const [value, text] of y.ticks) {
      svg(layer, "path", { class: "gvx-tick", d: `M${box.left} ${this.Y(value)}h-5` });
      svg(
        layer,
        "text",
        { x: box.left - 8, y: this.Y(value) + 4, "text-anchor": "end" },
        text,
      );
    }
    const up = this.view.sweep.spec.origin === "upper" ? "↓" : "↑";
    svg(
      layer,
      "text",
      { x: box.right, y: box.bottom + 37, "text-anchor": "end" },
      `→ ${x.label}, ${up} ${y.label}`,
    );
    for (const [px, py, kind] of points) {
      const shape = kind
        ? `M${this.X(px) - 3.5} ${this.Y(py) - 3.5}h7v7h-7z`
        : `M${this.X(px) - 4} ${this.Y(py)}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z`;
      svg(layer, "path", { class: `gvx-point gvx-point${kind ? 1 : 0}`, d: shape });
    }
  }

  draw() {
    const { view } = this,
      { sweep } = view,
      { value } = sweep.spec;
    const colours = value.colours[dark(this.parent) ? "dark" : "light"].map(rgb);
    const block = sweep.at(view);
    this.panels.forEach(({ canvas }, k) =>
      this.paint(canvas, sweep.read(block, k), colours),
    );
    this.bar.style.background = `linear-gradient(90deg, ${colours.map((c) => `rgb(${c})`).join(",")})`;
    const [low, high] = value.limits;
    const middle = value.scale === "log" ? Math.sqrt(low * high) : (low + high) / 2;
    this.ends.replaceChildren(
      ...[low, middle, high].map((v) => tag("span", {}, sweep.write(v))),
    );
    this.mark(view.looking());
  }

  paint(canvas, values, colours) {
    const {
      sizes: [columns, rows],
      spec,
    } = this.view.sweep;
    const share = scale(spec.value, 0, colours.length - 1);
    const image = new ImageData(columns, rows);
    for (let j = 0; j < rows; j++) {
      const row = spec.origin === "lower" ? rows - 1 - j : j;
      for (let i = 0; i < columns; i++) {
        image.data.set(
          [...blend(colours, share(values[row * columns + i])), 255],
          4 * (j * columns + i),
        );
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  mark([i, j]) {
    const {
      cursors: [x, y],
    } = this.view.sweep.spec;
    const px = this.X(x.values[i]),
      py = this.Y(y.values[j]);
    for (const { cursor } of this.panels) {
      clear(cursor);
      const d = `M${px} ${py - 18}v10m0 16v10M${px - 18} ${py}h10m16 0h10`;
      for (const kind of ["gvx-halo", "gvx-cursor"])
        svg(cursor, "path", { class: kind, d });
      for (const kind of ["gvx-halo", "gvx-cursor"])
        svg(cursor, "circle", { class: kind, cx: px, cy: py, r: 6 });
    }
  }

  locate(event, picture) {
    const {
        sizes: [columns, rows],
        spec,
      } = this.view.sweep,
      { box } = this;
    const place = picture.getBoundingClientRect();
    const share = (pixel, first, last) => (pixel - first) / (last - first);
    const down = share(event.clientY - place.top, box.top, box.bottom);
    const cell = (s, n) => clamp(Math.floor(s * n), 0, n - 1);
    return [
      cell(share(event.clientX - place.left, box.left, box.right), columns),
      cell(spec.origin === "lower" ? 1 - down : down, rows),
    ];
  }
}

/** Where the outermost cells end. */
function edges(values) {
  const half = values.length > 1 ? (values[1] - values[0]) / 2 : 0.5;
  return [values[0] - half, values.at(-1) + half];
}

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function blend(colours, place) {
  const k = Math.min(Math.floor(place), colours.length - 2),
    t = place - k;
  return colours[k].map((c, i) => Math.round(c + t * (colours[k + 1][i] - c)));
}

/** Whether text is light here: true on a dark page, whoever made it dark. */
function dark(node) {
  const [r, g, b] = getComputedStyle(node)
    .color.match(/[\d.]+/g)
    .map(Number);
  return r + 2 * g + b > 2 * 255;
}

// ---- the parts around the picture ---------------------------------------------------

/** A native range input over the indices of a control's values, with named stops. */
class Slider {
  constructor(control, id, choose, stops = true) {
    this.control = control;
    this.input = tag("input", { type: "range", id, step: "any" });
    this.output = tag("output", { for: id });
    this.choose = (index) => choose(clamp(index, 0, control.values.length - 1));
    this.index = 0;
    this.align(control.values.map((_, i) => i));
    set(this.input, {
      input: () => {
        this.choose(nearest(this.places, Number(this.input.value)));
        this.move();
      },
      keydown: (e) => this.key(e),
    });
    const label = tag("label", { for: id }, control.label, " ", this.output);
    this.node = tag("div", { class: "gvx-slider" }, label, this.input);
    if (!stops) return;
    this.stops = tag("div", { class: "gvx-stops", "aria-hidden": "true" });
    this.node.append(this.stops);
  }

  /** Where along the track each value lies, and the room left free on both sides. */
  align(places, left = 0, right = 0) {
    this.places = places;
    // A single value leaves nothing to move; a track of length 0 would be no slider.
    set(this.input, { min: places[0], max: Math.max(places.at(-1), places[0] + 1) });
    if (this.node)
      Object.assign(this.node.style, {
        marginLeft: `${left}px`,
        marginRight: `${right}px`,
      });
    this.move();
  }

  move() {
    const { min, max } = this.input,
      place = this.value === undefined ? this.places[this.index] : this.between();
    this.input.value = place;
    this.input.style.setProperty(
      "--gvx-share",
      `${(100 * (place - min)) / (max - min)}%`,
    );
  }

  // Done here and not by the browser: inside a cell JupyterLab cancels the arrow keys.
  key(event) {
    const step = KEYS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.choose(this.index + step);
  }

  layout() {
    if (!this.stops) return;
    const { texts } = this.control,
      last = Math.max(texts.length - 1, 1);
    const widest = Math.max(...texts.map((t) => t.length)) * 7.5 + 12;
    const width = this.node.clientWidth,
      step = Math.ceil((texts.length * widest) / Math.max(width, 1));
    this.stops.replaceChildren(
      ...texts.map((text, i) => {
        // The thumb is 18 px wide: its centre runs from 9 px to the width less 9 px.
        const stop = tag("span", { click: () => this.choose(i) }),
          middle = 9 + ((width - 18) * i) / last;
        stop.style.left = `${middle}px`;
        if (i % step) return stop;
        const name = tag("b", {}, text),
          half = text.length * 3.7;
        name.style.left = `${clamp(middle, half, width - half) - middle}px`; // no name leaves the box
        stop.append(name);
        return stop;
      }),
    );
  }

  /** Where a computed value lies among the stops. */
  between() {
    const { values } = this.control,
      last = values.length - 1;
    const exact = values.indexOf(this.value);
    if (exact >= 0) return this.places[exact];
    const above = values.findIndex((v) => v > this.value);
    if (above <= 0) return this.places[above === 0 ? 0 : last];
    const share =
      (this.value - values[above - 1]) / (values[above] - values[above - 1]);
    return above - 1 + share;
  }

  /** The stop at `index`, or a computed value with its text. */
  show(index, value, computed) {
    const text = computed ?? this.control.texts[index];
    this.index = index;
    this.value = value;
    this.input.setAttribute("aria-valuetext", text);
    this.output.textContent = text;
    this.move();
  }
}

/** With a kernel: asks the page's own function for a setting that is not in the sweep. */
class ComputeBox {
  constructor(view, uid) {
    this.view = view;
    const { sliders } = view.sweep.spec;
    this.fields = sliders.map((slider, i) => field(slider, `${uid}-c${i}`));
    this.button = tag("button", { type: "submit" }, "Compute");
    this.progress = tag("progress", {
      max: 1,
      "aria-label": "Progress of the computation",
      hidden: true,
    });
    this.said = tag("span", { role: "status" });
    this.results = tag("div", {
      class: "gvx-results",
      role: "group",
      "aria-label": "Computed settings",
    });
    this.node = tag(
      "form",
      { class: "gvx-compute", submit: (e) => this.ask(e) },
      tag(
        "p",
        {},
        "A setting that is not in the sweep, computed by this notebook’s kernel:",
      ),
      ...this.fields.map(({ label }) => label),
      this.button,
      this.progress,
      this.said,
      this.results,
    );
  }

  ask(event) {
    event.preventDefault();
    const { sliders } = this.view.sweep.spec,
      setting = {};
    sliders.forEach((slider, i) => {
      setting[slider.name] = slider.numeric
        ? this.fields[i].input.valueAsNumber
        : this.fields[i].input.value;
    });
    const empty = sliders.find((s) => s.numeric && !Number.isFinite(setting[s.name]));
    if (empty) {
      this.tell({ state: "error", text: `${empty.label}: enter a number.` });
      return;
    }
    this.tell({ state: "running", fraction: 0 });
    this.said.textContent = "Sent to the kernel …";
    clearTimeout(this.wait);
    this.wait = setTimeout(
      () =>
        this.tell({
          state: "error",
          text: "No answer yet: the kernel may be running another cell, or be stopped.",
        }),
      8000,
    );
    this.view.model.send({ kind: "compute", setting });
  }

  tell({ state, fraction, text }) {
    clearTimeout(this.wait);
    const running = state === "running";
    this.button.disabled = running;
    this.progress.hidden = !running;
    if (running && fraction > 0) this.progress.value = fraction;
    else this.progress.removeAttribute("value");
    this.said.textContent =
      text ?? (running ? `Computing … ${Math.round(100 * fraction)}${NBSP}%` : "");
    this.said.className = state === "error" ? "gvx-bad" : "";
  }

  show() {
    const { view } = this,
      { computed } = view.sweep;
    this.results.replaceChildren(
      ...computed.map((entry, k) =>
        tag(
          "button",
          {
            type: "button",
            "aria-pressed": String(view.shown === k),
            click: () => view.choose({ shown: k }),
          },
          view.sweep.name(entry),
        ),
      ),
    );
  }
}

function field(slider, id) {
  const middle = slider.values[Math.floor(slider.values.length / 2)];
  const input = slider.numeric
    ? tag("input", { type: "number", step: "any", id, required: true, value: middle })
    : tag(
        "select",
        { id },
        ...slider.values.map((v) => tag("option", { value: v }, v)),
      );
  const { label } = slider;
  const swept = slider.numeric
    ? `${label}, ${slider.values[0]} to ${slider.values.at(-1)}`
    : label;
  return { input, label: tag("label", { for: id }, swept, " ", input) };
}

/** The numbers of the present setting, for screen readers and the curious. */
function fill(table, sweep, block) {
  const { spec } = sweep,
    value = (at, k) => sweep.rows(block, at)[k];
  const cell = (text, scope) =>
    scope ? tag("th", { scope }, text) : tag("td", {}, text);
  const head = [cell(spec.cursors.map((c) => c.label).join(", "), "col")];
  for (const { label } of spec.series) {
    head.push(cell(label, "col"));
    if (spec.stats > 1) head.push(cell(`95${NBSP}% interval`, "col"));
  }
  const rows = places(sweep).map((at) =>
    tag(
      "tr",
      {},
      cell(spec.cursors.map((c, i) => c.texts[at[i]]).join(", "), "row"),
      ...spec.series.flatMap((_, k) => {
        const { mean, span } = value(at, k);
        const short = span?.replace(`95${NBSP}% interval `, "") ?? "none";
        return [cell(mean), ...(spec.stats > 1 ? [cell(short)] : [])];
      }),
    ),
  );
  const count = sweep.count(block, [0]);
  table.replaceChildren(
    tag("caption", {}, [sweep.name(block), count].filter(Boolean).join("; ")),
    tag("thead", {}, tag("tr", {}, ...head)),
    tag("tbody", {}, ...rows),
  );
}

/** The points a table lists: all of a line; of a picture every so many, 144 at most. */
function places(sweep) {
  const [columns, rows] = sweep.sizes;
  if (!rows) return Array.from({ length: columns }, (_, i) => [i]);
  const some = (n) =>
    Array.from({ length: Math.min(n, 12) }, (_, k) =>
      Math.round((k * (n - 1)) / Math.max(Math.min(n, 12) - 1, 1)),
    );
  return some(rows).flatMap((j) => some(columns).map((i) => [i, j]));
}

// ---- the whole ----------------------------------------------------------------------

class View {
  constructor(model, root) {
    this.model = model;
    this.sweep = new Sweep(model);
    const { spec } = this.sweep,
      host = model.get("host");
    this.uid = `gvx-${Math.random().toString(36).slice(2, 9)}`;
    this.state(model.get("picks"), model.get("at"), model.get("shown") ?? -1);
    this.before = this.peek = null;
    this.address = host
      ? new Address(host.replace(/^gv-/, ""), [...spec.sliders, ...spec.cursors])
      : null;
    this.build(root);
    if (this.address) this.arrive();
    this.watch();
    this.resize();
    this.refresh();
  }

  state(picks, at, shown) {
    Object.assign(this, { picks: [...picks], at: [...at], shown });
  }

  looking() {
    return this.peek ?? this.at;
  }

  /** Takes what the address asks for, and says what it could not give. */
  arrive() {
    const { indices, said } = this.address.read(),
      n = this.picks.length;
    indices.forEach((index, k) => {
      if (index === null) return;
      if (k < n) this.picks[k] = index;
      else this.at[k - n] = index;
    });
    this.note.textContent = said.join(" ");
    this.note.hidden = !said.length;
  }

  build(root) {
    const { spec } = this.sweep;
    this.sliders = spec.sliders.map(
      (s, i) =>
        new Slider(s, `${this.uid}-s${i}`, (index) => {
          this.choose({
            picks: this.picks.map((p, k) => (k === i ? index : p)),
            shown: -1,
          });
        }),
    );
    this.cursors = spec.cursors.map(
      (c, i) =>
        new Slider(
          c,
          `${this.uid}-x${i}`,
          (index) => {
            this.choose({ at: this.at.map((p, k) => (k === i ? index : p)) });
          },
          false,
        ),
    );
    this.note = tag("p", { class: "gvx-note", role: "status", hidden: true });
    this.picture = tag("div", { class: "gvx-plot" });
    this.readout = tag("dl", { class: "gvx-readout" });
    this.where = tag("p", { class: "gvx-where" });
    this.live = tag("p", { class: "gvx-hidden", "aria-live": "polite" });
    this.table = tag("table", { class: "gvx-table" });
    const moving = this.sliders
      .filter((s) => s.control.values.length > 1)
      .map((s) => s.node);
    this.node = tag(
      "div",
      {
        class: "gvx gv-explorer",
        role: "group",
        "aria-label": spec.title,
        "data-lm-suppress-shortcuts": "true",
      },
      tag("p", { class: "gvx-title" }, spec.title),
      this.note,
      tag("div", { class: "gvx-controls" }, ...moving),
      this.picture,
      tag(
        "div",
        { class: `gvx-controls gvx-cursors gvx-${spec.kind}` },
        ...this.cursors.map((c) => c.node),
      ),
      this.where,
      this.readout,
      this.live,
      this.actions(),
      this.numbers(),
      this.caption(),
    );
    if (spec.compute) {
      this.box = new ComputeBox(this, this.uid);
      this.node.insertBefore(this.box.node, this.details);
    }
    root.append(this.node);
    this.plot = new (spec.kind === "lines" ? LinePlot : ImagePlot)(this, this.picture);
  }

  actions() {
    const row = tag("div", { class: "gvx-actions" });
    this.told = tag("span", { role: "status" });
    if (this.address)
      row.append(
        tag(
          "button",
          { type: "button", click: () => this.copy() },
          "Copy link to this view",
        ),
      );
    row.append(
      tag("button", { type: "button", click: () => this.reset() }, "Reset"),
      this.told,
    );
    return row;
  }

  numbers() {
    this.details = tag(
      "details",
      { toggle: () => this.fill() },
      tag("summary", {}, "Data table"),
      tag(
        "div",
        {
          class: "gvx-scroll",
          tabindex: 0,
          role: "region",
          "aria-label": `Data table: ${this.sweep.spec.title}`,
        },
        this.table,
      ),
    );
    return this.details;
  }

  caption() {
    const { caption, notes, provenance } = this.sweep.spec;
    return tag(
      "p",
      { class: "gvx-caption" },
      [caption, ...notes].filter(Boolean).join(" "),
      " ",
      tag("span", { class: "gvx-source" }, provenance),
    );
  }

  /** Every change of the state goes through here. */
  choose({ picks = this.picks, at = this.at, shown = this.shown }) {
    const moved = shown !== this.shown || String(picks) !== String(this.picks);
    if (!moved && String(at) === String(this.at)) return;
    if (moved) this.before = { picks: this.picks, shown: this.shown };
    this.state(picks, at, shown);
    this.peek = null;
    if (this.address) this.address.write([...this.picks, ...this.at]);
    else this.share();
    this.refresh();
  }

  share() {
    for (const key of ["picks", "at", "shown"]) this.model.set(key, this[key]);
    this.model.save_changes();
  }

  /** The kernel, or another view of the same widget, has changed something. */
  taken() {
    this.sweep.take(this.model);
    const [picks, at, shown] = ["picks", "at", "shown"].map((key) =>
      this.model.get(key),
    );
    // Results and their number arrive one after the other.
    const there = shown < this.sweep.computed.length ? shown : -1;
    if (String([this.picks, this.shown]) !== String([picks, there]))
      this.before = { picks: this.picks, shown: this.shown };
    this.state(picks, at, there);
    this.resize();
    this.refresh();
  }

  reset() {
    const { picks, at } = this.sweep.spec.start;
    this.choose({ picks, at, shown: -1 });
    this.before = null;
    this.note.hidden = true;
    this.address?.write(null);
    this.refresh();
  }

  async copy() {
    const link = this.address.link([...this.picks, ...this.at]);
    try {
      await navigator.clipboard.writeText(link);
      this.told.replaceChildren("Link copied.");
    } catch {
      // no clipboard without https or permission: show the link to be copied by hand
      const box = tag("input", {
        readonly: true,
        value: link,
        "aria-label": "Link to this view",
      });
      this.told.replaceChildren(box);
      box.select();
    }
  }

  glance(at) {
    if (String(at) === String(this.peek)) return;
    this.peek = at;
    this.plot.mark(this.looking());
    this.say();
  }

  refresh() {
    const { setting, texts } = this.shown >= 0 ? this.sweep.at(this) : {};
    this.sliders.forEach((slider, i) =>
      slider.show(this.picks[i], setting?.[i], texts?.[i]),
    );
    this.cursors.forEach((slider, i) => slider.show(this.at[i]));
    this.plot.draw();
    this.say();
    this.box?.show();
    if (this.details.open) this.fill();
    this.announce();
  }

  /** Value, interval and n at the cursor. */
  say() {
    const { sweep } = this,
      at = this.looking(),
      block = sweep.at(this);
    const before = this.before ? sweep.at(this.before) : null;
    const old = before && sweep.rows(before, at);
    this.readout.replaceChildren(
      ...sweep
        .rows(block, at)
        .map(({ label, mean, span }, k) =>
          tag(
            "div",
            { class: sweep.spec.kind === "lines" ? tone(k) : "" },
            tag("dt", {}, label),
            tag(
              "dd",
              {},
              tag("strong", {}, mean),
              tag("span", {}, span ?? ""),
              tag(
                "span",
                { class: "gvx-was" },
                old && old[k].mean !== mean ? `before: ${old[k].mean}` : "",
              ),
            ),
          ),
        ),
    );
    const parts = [sweep.name(block), sweep.place(at), sweep.count(block, at)];
    const lines =
      sweep.spec.kind === "lines" && before
        ? `Dotted, before: ${sweep.name(before)}.`
        : "";
    this.where.textContent = `${parts.filter(Boolean).join(" · ")}. ${lines}`;
  }

  /** Tells screen readers once the hand rests, and not at the start. */
  announce() {
    clearTimeout(this.resting);
    const words = this.sweep.words(this.sweep.at(this), this.at);
    if (this.announced === undefined) {
      this.announced = words;
      return;
    }
    if (words === this.announced) return;
    this.resting = setTimeout(() => {
      this.live.textContent = this.announced = words;
    }, 600);
  }

  fill() {
    if (this.details.open) fill(this.table, this.sweep, this.sweep.at(this));
  }

  resize() {
    const width = this.picture.clientWidth;
    if (!width) return; // not on the page yet, or hidden: the observer tells when it is
    this.width = width;
    this.plot.layout(width);
    this.sliders.forEach((slider) => slider.layout());
  }

  watch() {
    this.plot.layout(this.picture.clientWidth || 600);
    this.sizes = new ResizeObserver(() => {
      if (this.picture.clientWidth !== this.width) this.resize();
    });
    this.sizes.observe(this.picture);
    this.redraw = () => this.plot.draw();
    this.theme = new MutationObserver(this.redraw);
    for (const node of [document.documentElement, document.body])
      this.theme.observe(node, { attributes: true });
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.redraw);
    this.onChange = () => this.taken();
    this.onStatus = () => this.box?.tell(this.model.get("status"));
    for (const key of ["picks", "at", "shown", "computed", "spec"])
      this.model.on(`change:${key}`, this.onChange);
    this.model.on("change:status", this.onStatus);
  }

  close() {
    this.sizes.disconnect();
    this.theme.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
    for (const key of ["picks", "at", "shown", "computed", "spec"])
      this.model.off(`change:${key}`, this.onChange);
    this.model.off("change:status", this.onStatus);
    for (const timer of [this.resting, this.address?.timer, this.box?.wait])
      clearTimeout(timer);
  }
}

function render({ model, el }) {
  const view = new View(model, el);
  return () => view.close();
}

export default { render };
