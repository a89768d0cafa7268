// Mounts a widget's module on a static page: no kernel, no libraries, no outside request.
// The page holds <div class="gv-static" data-module="explorer"> with the state as JSON,
// arrays as base64 (packed by gvlib._packed or as they are), and a picture
// (.gv-fallback) for readers without JavaScript.

class Model {
  constructor(state) {
    this.state = state;
    this.handlers = {};
  }
  get(key) {
    return this.state[key];
  }
  set(key, value) {
    this.state[key] = value;
    this.tell(`change:${key}`, value);
  }
  tell(event, value) {
    for (const f of [...(this.handlers[event] ?? [])]) f({ changed: event }, value);
  }
  on(event, f) {
    (this.handlers[event] ??= []).push(f);
  }
  off(event, f) {
    this.handlers[event] = f ? (this.handlers[event] ?? []).filter((g) => g !== f) : [];
  }
  save_changes() {}
  send() {}
}

const bytes = (text) =>
  new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

// What gvlib._packed.pack made: deflated, the first bytes of all float32s first.
async function unpacked(text) {
  const deflated = new Blob([bytes(text)]).stream();
  const stream = deflated.pipeThrough(new DecompressionStream("deflate"));
  const inflated = new Response(stream).arrayBuffer().catch(() => {
    throw new Error("its numbers came cut short or damaged");
  });
  const planes = new Uint8Array(await inflated);
  const count = planes.length / 4;
  const whole = Uint8Array.from(planes, (_, k) => planes[(k % 4) * count + (k >> 2)]);
  return new DataView(whole.buffer);
}

async function mount(el) {
  const fallback = el.querySelector(".gv-fallback");
  const place = document.createElement("div");
  try {
    const { state, buffers, packed } = JSON.parse(el.querySelector("script").textContent);
    for (const key in buffers) state[key] = bytes(buffers[key]);
    for (const key in packed) state[key] = await unpacked(packed[key]);
    const { module, version } = el.dataset;
    const loaded = (
      await import(new URL(`${module}.js?v=${version ?? ""}`, import.meta.url))
    ).default;
    const widget = typeof loaded === "function" ? await loaded() : loaded;
    const model = new Model({ ...state, host: el.id });
    el.append(place);
    await widget.initialize?.({ model });
    await widget.render({ model, el: place });
    fallback?.remove();
  } catch (error) {
    console.error(error);
    place.remove();
    const note = document.createElement("p");
    note.className = "gv-error";
    note.setAttribute("role", "alert");
    note.textContent =
      `This interactive view could not start (${error.message}). ` +
      "The picture shows its first setting; reloading the page may help.";
    el.prepend(note);
  }
}

const seen = {};
const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        near.unobserve(target);
        mount(target);
      }
    }
  },
  { rootMargin: "400px" },
);
for (const el of document.querySelectorAll(".gv-static")) {
  const count = (seen[el.id] = (seen[el.id] ?? 0) + 1);
  if (count > 1) el.id += `-${count}`; // two views with one title keep their states apart
  near.observe(el);
}
