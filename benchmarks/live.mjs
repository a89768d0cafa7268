// One way to train, in node: node live.mjs WAY JOB.json [NODE_MODULES]
// JOB: sizes, tensors as base64, and files. Prints {steps, seconds} of this process's own
// CPU time, once warm, and the first parameter's sum, which says that all did the same.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Program } from "../gvlib/static/playground.js";

const [way, file, modules] = process.argv.slice(2);
const job = JSON.parse(readFileSync(file, "utf-8"));
const { d, h, h2, c, n } = job.sizes;
const floats = (name) => {
  const b = Buffer.from(job.set[name], "base64");
  return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
};
const ints = (name) => new Int32Array(floats(name).buffer);
const names = Object.keys(job.set).filter((k) => k.startsWith("params."));
const rates = { lr: 0.05, momentum: 0.9, decay: 1e-3 };
const load = (name) =>
  import(pathToFileURL(createRequire(`${modules}/`).resolve(name)).href);

// ---- ours ---------------------------------------------------------------------------

function compiled() {
  const module = new WebAssembly.Module(readFileSync(job.wasm));
  const program = new Program(module, JSON.parse(readFileSync(job.spec, "utf-8")));
  program.resize({ ...job.sizes, g: 4096 });
  for (const name in job.set)
    program.set(name, name === "y" ? ints(name) : floats(name));
  return {
    step: (k) => program.call("train", k),
    first: () => program.get(names[0]),
    redraw: () => program.call("predict"),
  };
}

// ---- plain JavaScript: loops over Float32Arrays, as one would write them ------------

function product(C, A, B, rows, inner, columns) {
  C.fill(0);
  for (let i = 0; i < rows; i++)
    for (let k = 0; k < inner; k++) {
      const a = A[i * inner + k];
      for (let j = 0; j < columns; j++) C[i * columns + j] += a * B[k * columns + j];
    }
}
function turned(A, rows, columns) {
  const T = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) T[j * rows + i] = A[i * columns + j];
  return T;
}

function plain() {
  const P = names.map(floats),
    V = P.map((p) => new Float32Array(p.length));
  const widths = h2 ? [d, h, h2, c] : [d, h, c];
  const layers = widths.length - 1;
  const x = floats("x"),
    y = ints("y");
  const acts = [x, ...widths.slice(1).map((w) => new Float32Array(n * w))];
  const slopes = P.map((p) => new Float32Array(p.length));
  const once = () => {
    for (let l = 0; l < layers; l++) {
      const [i, o] = [widths[l], widths[l + 1]];
      product(acts[l + 1], acts[l], P[2 * l], n, i, o);
      for (let r = 0; r < n; r++)
        for (let j = 0; j < o; j++) {
          const v = acts[l + 1][r * o + j] + P[2 * l + 1][j];
          acts[l + 1][r * o + j] = l < layers - 1 && v < 0 ? 0 : v;
        }
    }
    let back = new Float32Array(n * c);
    for (let r = 0; r < n; r++) {
      const z = acts[layers].subarray(r * c, r * c + c),
        top = Math.max(...z);
      let sum = 0;
      for (let j = 0; j < c; j++) sum += back[r * c + j] = Math.exp(z[j] - top);
      for (let j = 0; j < c; j++)
        back[r * c + j] = (back[r * c + j] / sum - (j === y[r] ? 1 : 0)) / n;
    }
    for (let l = layers - 1; l >= 0; l--) {
      const [i, o] = [widths[l], widths[l + 1]];
      product(slopes[2 * l], turned(acts[l], n, i), back, i, n, o);
      slopes[2 * l + 1].fill(0);
      for (let r = 0; r < n; r++)
        for (let j = 0; j < o; j++) slopes[2 * l + 1][j] += back[r * o + j];
      if (!l) break;
      const next = new Float32Array(n * i);
      product(next, back, turned(P[2 * l], i, o), n, o, i);
      for (let q = 0; q < n * i; q++) if (acts[l][q] <= 0) next[q] = 0;
      back = next;
    }
    P.forEach((p, k) => {
      for (let q = 0; q < p.length; q++) {
        V[k][q] = rates.momentum * V[k][q] + slopes[k][q] + rates.decay * p[q];
        p[q] -= rates.lr * V[k][q];
      }
    });
  };
  return { step: (k) => { while (k--) once(); }, first: () => P[0] }; // prettier-ignore
}

// ---- TensorFlow.js on WebAssembly ---------------------------------------------------

async function tfjs() {
  const tf = await load("@tensorflow/tfjs");
  const backend = await load("@tensorflow/tfjs-backend-wasm");
  backend.setThreadsCount?.(1);
  await tf.setBackend("wasm");
  const widths = h2 ? [d, h, h2, c] : [d, h, c];
  const P = names.map((name, k) => {
    const shape = k % 2 ? [widths[(k + 1) / 2]] : [widths[k / 2], widths[k / 2 + 1]];
    return tf.variable(tf.tensor(floats(name), shape));
  });
  const V = P.map((p) => tf.variable(tf.zerosLike(p)));
  const x = tf.tensor(floats("x"), [n, d]),
    y = tf.oneHot(tf.tensor1d(ints("y"), "int32"), c).toFloat();
  const loss = () => {
    let z = x;
    for (let l = 0; l < widths.length - 1; l++) {
      z = z.matMul(P[2 * l]).add(P[2 * l + 1]);
      if (l < widths.length - 2) z = z.relu();
    }
    return z.logSoftmax().mul(y).sum().div(-n);
  };
  const once = () =>
    tf.tidy(() => {
      const { grads } = tf.variableGrads(loss, P);
      P.forEach((p, k) => {
        V[k].assign(V[k].mul(rates.momentum).add(grads[p.name]).add(p.mul(rates.decay)));
        p.assign(p.sub(V[k].mul(rates.lr)));
      });
    });
  return { step: (k) => { while (k--) once(); }, first: () => P[0].dataSync() }; // prettier-ignore
}

// ---- ONNX Runtime on WebAssembly: the step as a graph -------------------------------

async function onnx() {
  const ort = await load("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(job.onnx, { executionProviders: ["wasm"] });
  const shapes = job.shapes;
  let state = {};
  for (const name of names) {
    const short = name.replace("params.", "");
    state[short] = new ort.Tensor("float32", floats(name), shapes[name]);
    state[`v_${short}`] = new ort.Tensor("float32", new Float32Array(floats(name).length), shapes[name]);
  }
  const onehot = new Float32Array(n * c);
  ints("y").forEach((label, k) => (onehot[k * c + label] = 1));
  const fixed = {
    x: new ort.Tensor("float32", floats("x"), [n, d]),
    y: new ort.Tensor("float32", onehot, [n, c]),
  };
  const step = async (k) => {
    while (k--) {
      const out = await session.run({ ...fixed, ...state });
      for (const name in state) state[name] = out[`${name}_new`];
    }
  };
  return { step, first: () => state[names[0].replace("params.", "")].data };
}

// ---- the clock ----------------------------------------------------------------------

const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const ways = { compiled, plain, tfjs, onnx };
const { step, first, redraw } = await ways[way]();
await step(5);
const sum = first().reduce((a, b) => a + Math.abs(b), 0);
let count = 0;
await step(20);
const start = cpu();
while (cpu() - start < job.seconds) {
  await step(10);
  count += 10;
}
const result = { steps: count, seconds: cpu() - start, sum };
if (redraw) {
  const from = cpu();
  let drawn = 0;
  for (; cpu() - from < job.seconds; drawn++) redraw();
  result.redraws = drawn / (cpu() - from);
}
console.log(JSON.stringify(result));
process.exit(0);
