// SPDX-License-Identifier: Apache-2.0
// A model of onnx_model.py in ONNX Runtime. Reads one JSON object a line, answers with one a line:
//   {"what": "prefill", "tokens": 128}                           -> {"seconds": of the whole prompt}
//   {"what": "decode", "batch": 16, "context": 32, "turns": 8}   -> {"seconds": of one step}
//   {"what": "encode", "batch": 8, "tokens": 128}                -> {"seconds": of one run}
//   {"what": "logits", "ids": [...], "cached": 3}                -> {"logits": of the last token}; the first 3 in a run of their own
//   {"what": "hidden", "ids": [...]}                             -> {"hidden": of all tokens, one after another}
// Usage: node onnx_run.js NODE_MODULES MODEL.onnx THREADS FACTS_AS_JSON
'use strict';
const path = require('path');
const readline = require('readline');

const [modules, file, threads, factsText] = process.argv.slice(2);
const ort = require(path.resolve(modules, 'onnxruntime-node'));
const facts = JSON.parse(factsText); // layers, heads, dim, vocab
const size = facts.dim / facts.heads;

const ints = (values, dims) => new ort.Tensor('int64', BigInt64Array.from(values, BigInt), dims);
const floats = (dims) => new ort.Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
const range = (n, f) => Array.from({length: n}, (_, i) => f(i));

// Inputs of `batch` texts of the same ids after `past` cached tokens.
function inputsFor(session, batch, ids, past, cache) {
  const n = ids.length, dims = [batch, n], feeds = {};
  feeds.ids = ints(range(batch * n, (i) => ids[i % n]), dims);
  feeds.positions = ints(range(batch * n, (i) => past + i % n), dims);
  if (session.inputNames.includes('mask')) {
    feeds.mask = floats([1, 1, n, past + n]);
    for (let i = 0; i < n; i++)
      for (let j = past + i + 1; j < past + n; j++) feeds.mask.data[i * (past + n) + j] = -1e30;
  }
  for (const name of session.inputNames)
    if (name.startsWith('past'))
      feeds[name] = cache ? cache[name.replace('past', 'present')]
                          : floats([...(name.startsWith('past_') && /^past_\d/.test(name) ? [2] : []), batch, facts.heads, past, size]);
  return feeds;
}

const tokens = (n) => range(n, (i) => i * 7919 % facts.vocab);

async function timed(f) {
  const start = process.hrtime.bigint();
  const result = await f();
  return [Number(process.hrtime.bigint() - start) / 1e9, result];
}

async function decode(session, {batch, context, turns}) {
  let cache = await session.run(inputsFor(session, batch, tokens(context), 0, null));
  let total = 0;
  for (let i = -1; i < turns; i++) {
    const feeds = inputsFor(session, batch, [(context + i) * 7919 % facts.vocab], context + i + 1, cache);
    const [seconds, next] = await timed(() => session.run(feeds));
    if (i >= 0) total += seconds;
    cache = next;
  }
  return {seconds: total / turns};
}

async function answer(session, command) {
  if (command.what === 'decode') return decode(session, command);
  const ids = command.ids || tokens(command.tokens);
  const past = command.cached || 0;
  const cache = past ? await session.run(inputsFor(session, 1, ids.slice(0, past), 0, null)) : null;
  const feeds = inputsFor(session, command.batch || 1, ids.slice(past), past, cache);
  const [seconds, result] = await timed(() => session.run(feeds));
  if (command.what === 'logits' || command.what === 'hidden') return {[command.what]: Array.from(result[command.what].data)};
  return {seconds};
}

async function main() {
  const session = await ort.InferenceSession.create(file, {
    intraOpNumThreads: Number(threads), interOpNumThreads: 1, executionMode: 'sequential',
    graphOptimizationLevel: 'all', logSeverityLevel: 3,
  });
  console.log(JSON.stringify({ready: true, version: ort.env.versions.node}));
  for await (const line of readline.createInterface({input: process.stdin})) {
    let reply;
    try { reply = await answer(session, JSON.parse(line)); } catch (e) { reply = {error: e.message}; }
    console.log(JSON.stringify(reply));
  }
}

main().catch((e) => { console.log(JSON.stringify({error: e.message})); process.exit(1); });
