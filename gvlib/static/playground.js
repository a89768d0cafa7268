// ---- the compiled experiment --------------------------------------------------------

const ARRAYS = { f32: Float32Array, i32: Int32Array };

/** One run of a compiled experiment: its memory and its functions. */
export class Program {
  constructor(module, spec) {
    this.spec = spec;
    this.names = Object.keys(spec.tensors);
    this.exports = new WebAssembly.Instance(module, {}).exports;
    this.sizes = {};
  }

  /** Lays the memory out anew; all tensors are undefined after it. */
  resize(sizes) {
    const { memory, get_sizes, get_tensors, setup } = this.exports;
    for (const [name, least] of Object.entries(this.spec.sizes))
      if (!(Number.isInteger(sizes[name]) && sizes[name] >= least))
        throw new RangeError(`size ${name} is ${sizes[name]}: expected ${least} or more`);
    this.sizes = { ...sizes };
    const numbers = Object.keys(this.spec.sizes).map((name) => sizes[name]);
    new Int32Array(memory.buffer, get_sizes(), numbers.length).set(numbers);
    if (!setup()) throw new RangeError("the browser gives no more memory");
    this.table = new Uint32Array(memory.buffer, get_tensors(), this.names.length);
    this.places = Object.fromEntries(this.names.map((name, k) => [name, k]));
  }

  length(name) {
    const { shape } = this.spec.tensors[name];
    return shape.reduce((n, s) => n * (typeof s === "number" ? s : this.sizes[s]), 1);
  }

  /** The tensor's numbers where they lie now; a step moves its states. */
  get(name) {
    const { dtype } = this.spec.tensors[name];
    const { buffer } = this.exports.memory;
    return new ARRAYS[dtype](buffer, this.table[this.places[name]], this.length(name));
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
