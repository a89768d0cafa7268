// Runs compiled experiments in node with the code that readers get: playground.js.
// stdin: [{wasm, spec, sizes, set: {name: base64}, call: [[name, repeats]], get: [name]}]
// stdout: for each, {name: base64} and the repeats that each call did, under "calls".
import { readFileSync } from "node:fs";
import { Program } from "../gvlib/static/playground.js";

const bytes = (text) => {
  const b = Buffer.from(text, "base64");
  return b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength);
};
const modules = {};
const done = JSON.parse(readFileSync(0, "utf-8")).map((job) => {
  modules[job.wasm] ??= new WebAssembly.Module(bytes(job.wasm));
  const program = new Program(modules[job.wasm], job.spec);
  program.resize(job.sizes);
  for (const [name, text] of Object.entries(job.set)) {
    const float = job.spec.tensors[name].dtype === "f32";
    program.set(name, new (float ? Float32Array : Int32Array)(bytes(text)));
  }
  const calls = job.call.map(([name, repeats]) => program.call(name, repeats));
  const read = (name) => Buffer.from(program.get(name).slice().buffer).toString("base64");
  return { ...Object.fromEntries(job.get.map((n) => [n, read(n)])), calls };
});
process.stdout.write(JSON.stringify(done));
