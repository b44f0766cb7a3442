// SPDX-License-Identifier: Apache-2.0
// The official openai client against a running server. Prints TAP.
// Environment: TEST_FATHOM (the binary), TEST_MODEL (a model folder), TEST_DATA (the folder of tiny models). Skipped if the client is not installed.
import assert from "node:assert/strict";
import { once } from "node:events";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const KEY = "client-test-key";
let openai;
try {
  openai = await import("openai");
} catch {
  console.log("1..0 # SKIP the openai package is not installed (npm ci in tests/clients)");
  process.exit(0);
}
const OpenAI = openai.default;

const keys = join(mkdtempSync(join(tmpdir(), "fathom-keys-")), "keys");
writeFileSync(keys, `${KEY} name=tests\n`);

async function startServer(...flags) {
  return startModel(process.env.TEST_MODEL, ...flags);
}

async function startModel(model, ...flags) {
  const server = spawn(process.env.TEST_FATHOM, [
    "serve", "--model", model, "--served-model-name", "demo", "--port", "0", "--chat-template", "plain",
    "--api-key-file", keys, "--metrics-public", "--log-level", "warn", ...flags,
  ], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  return { server, url: line.trim().split(" ").pop() };
}

async function stopServer({ server }) {
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.equal(code, 0);
}

async function metric(url, name) {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((l) => l.startsWith(`${name} `));
  return Number(line.split(" ").pop());
}

// A client of a server of one of the tiny folders.
async function withTiny(name, use) {
  const tiny = await startModel(join(process.env.TEST_DATA, name));
  try {
    await use(new OpenAI({ baseURL: `${tiny.url}/v1`, apiKey: KEY, maxRetries: 0 }), tiny);
  } finally {
    await stopServer(tiny);
  }
}

async function notSupported(promise, instead) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.status, 501);
    assert.equal(error.code, "not_supported");
    assert.ok(error.message.includes(instead), error.message);
    return true;
  });
}

const main = await startServer();
const client = new OpenAI({ baseURL: `${main.url}/v1`, apiKey: KEY, maxRetries: 0 });
const prompt = "The city was founded in";

const tests = {
  async a_prompt_that_was_sent_before_is_cached_and_answered_alike() {
    const prompt = Array.from({ length: 150 }, (_, i) => 5 + (i * 37) % 900);
    const fields = { model: "demo", prompt, max_tokens: 8, temperature: 0 };
    const first = await client.completions.create(fields);
    const again = await client.completions.create(fields);
    const never = await client.completions.create({ ...fields, cache_prompt: false });
    const cached = [first, again, never].map((a) => a.usage.prompt_tokens_details.cached_tokens);
    assert.deepEqual(cached, [0, 128, 0]);
    assert.equal(again.choices[0].text, first.choices[0].text);
    assert.equal(never.choices[0].text, first.choices[0].text);
  },

  async a_completion_has_text_usage_depth_and_timings() {
    const answer = await client.completions.create({ model: "demo", prompt, max_tokens: 8, temperature: 0, depth: 2 });
    assert.equal(answer.object, "text_completion");
    assert.equal(answer.usage.completion_tokens, answer.usage.total_tokens - answer.usage.prompt_tokens);
    assert.ok(answer.choices[0].finish_reason === "length" || answer.choices[0].finish_reason === "stop");
    assert.equal(answer.depth.used, 2);
    assert.equal(answer.depth.reason, "explicit");
    assert.equal(answer.depth.layers.length, 2);
    assert.ok(answer.timings.total_ms > 0);
  },

  async a_stream_adds_up_to_the_whole_answer() {
    const fields = { model: "demo", prompt, max_tokens: 480, temperature: 0.8, seed: 11, ignore_eos: true };
    const whole = await client.completions.create(fields);
    const stream = await client.completions.create({ ...fields, stream: true, stream_options: { include_usage: true } });
    let text = "", usage, chunks = 0;
    for await (const chunk of stream) {
      chunks++;
      text += chunk.choices[0]?.text ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0].text);
    assert.deepEqual(usage, whole.usage);
    assert.ok(chunks > 2, `${chunks} chunks`); // the first token comes at once, a slow reader's others may come together
  },

  async chat_streams_with_a_role_and_deltas() {
    const stream = await client.chat.completions.create({
      model: "demo@2", messages: [{ role: "user", content: "Hello" }], max_tokens: 6, stream: true,
    });
    let role, finish, text = "";
    for await (const chunk of stream) {
      assert.equal(chunk.object, "chat.completion.chunk");
      role ??= chunk.choices[0]?.delta.role;
      text += chunk.choices[0]?.delta.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    assert.equal(role, "assistant");
    assert.ok(["stop", "length"].includes(finish));
  },

  async aborting_a_stream_leaves_the_engine_idle() {
    const stream = await client.completions.create({
      model: "demo", prompt, max_tokens: 200, stream: true, ignore_eos: true,
    });
    for await (const _ of stream) {
      stream.controller.abort();
      break;
    }
    const start = Date.now();
    while ((await metric(main.url, "fathom_requests_running")) > 0) {
      assert.ok(Date.now() - start < 20000, "still running long after the client left");
    }
  },

  async models_are_listed_and_retrieved() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes("demo") && ids.includes("demo@fast"));
    assert.equal((await client.models.retrieve("demo")).id, "demo");
    assert.equal((await client.models.retrieve("demo@fast")).id, "demo@fast");
  },

  async errors_come_as_the_clients_own_classes() {
    await assert.rejects(client.completions.create({ model: "demo", prompt, depth: 1000 }), (error) => {
      assert.ok(error instanceof openai.BadRequestError);
      assert.equal(error.code, "invalid_depth");
      assert.equal(error.param, "depth");
      return true;
    });
    await assert.rejects(client.completions.create({ model: "wrong", prompt }), openai.NotFoundError);
    await assert.rejects(client.models.retrieve("wrong"), openai.NotFoundError);
    const stranger = new OpenAI({ baseURL: `${main.url}/v1`, apiKey: "not-the-key", maxRetries: 0 });
    await assert.rejects(stranger.completions.create({ model: "demo", prompt }), openai.AuthenticationError);
    await notSupported(client.embeddings.create({ model: "demo", input: "x" }), "/v1/completions");
  },

  // The client asks for base64 by itself and decodes it: element by element what a list of numbers gives.
  async embeddings_come_as_base64_and_are_the_numbers() {
    await withTiny("tiny-encoder", async (encoder) => {
      const input = ["ba va fide", "tu", "wego sode goba ka"];
      const packed = await encoder.embeddings.create({ model: "demo", input });
      const listed = await encoder.embeddings.create({ model: "demo", input, encoding_format: "float" });
      assert.equal(packed.data.length, 3);
      for (let i = 0; i < 3; i++) {
        assert.equal(packed.data[i].index, i);
        assert.equal(packed.data[i].embedding.length, 32);
        const floats = Float32Array.from(listed.data[i].embedding);
        listed.data[i].embedding.forEach((x, k) => assert.equal(Math.fround(x), packed.data[i].embedding[k]));
        assert.deepEqual(Array.from(floats), Array.from(packed.data[i].embedding));
        assert.ok(Math.abs(floats.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5);
      }
      assert.deepEqual(packed.usage, listed.usage);
      assert.equal(packed.usage.prompt_tokens, 5 + 3 + 6);
      assert.equal(packed.depth.used, 5);
      const shallow = await encoder.embeddings.create({ model: "demo@2", input: "ba va fide" });
      assert.equal(shallow.depth.used, 2);
      assert.notDeepEqual(Array.from(shallow.data[0].embedding), Array.from(packed.data[0].embedding));
    });
  },

  async an_encoder_writes_no_text() {
    await withTiny("tiny-encoder", async (encoder) => {
      await notSupported(encoder.completions.create({ model: "demo", prompt }), "/classify");
      await notSupported(encoder.chat.completions.create({ model: "demo", messages: [{ role: "user", content: "Hello" }] }), "/classify");
      await assert.rejects(encoder.embeddings.create({ model: "demo", input: "ba", dimensions: 7 }), (error) => {
        assert.ok(error instanceof openai.BadRequestError);
        assert.equal(error.code, "unsupported_parameter");
        return true;
      });
    });
  },

  async a_source_becomes_hypotheses_or_a_stream() {
    await withTiny("tiny-mt-pre", async (translator) => {
      const fields = { model: "demo", prompt: "The old house", max_tokens: 10 };
      const best = await translator.completions.create({ ...fields, num_beams: 4, n: 4, logprobs: 0 });
      const scores = best.choices.map((choice) => choice.score);
      assert.equal(scores.length, 4);
      assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
      const greedy = await translator.completions.create({ ...fields, num_beams: 1, depth: { encoder: 2, decoder: 3 } });
      assert.deepEqual(greedy.depth.used, { encoder: 2, decoder: 3 });
      let text = "";
      for await (const chunk of await translator.completions.create({ ...fields, stream: true, depth: { encoder: 2, decoder: 3 } })) {
        text += chunk.choices[0]?.text ?? "";
      }
      assert.equal(text, greedy.choices[0].text);
      await notSupported(translator.embeddings.create({ model: "demo", input: "a" }), "/v1/completions");
      await notSupported(translator.chat.completions.create({ model: "demo", messages: [{ role: "user", content: "Hello" }] }), "/v1/completions");
    });
  },

  // The queue holds one request: the first runs, the second waits, the third is refused and must be retried by the client.
  async a_refusal_for_load_is_retried_after_retry_after_ms() {
    const small = await startServer("--queue-requests", "1", "--max-running", "1", "--retry-after", "50ms");
    const impatient = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: KEY, maxRetries: 0 });
    const patient = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: KEY, maxRetries: 1000 });
    const fields = { model: "demo", prompt, max_tokens: 60, ignore_eos: true };
    const busy = Promise.all([impatient.completions.create(fields), impatient.completions.create(fields)].map((p) => p.catch((e) => e)));
    while ((await metric(small.url, "fathom_requests_waiting")) < 1 && (await metric(small.url, "fathom_requests_running")) > 0);
    let refused = 0;
    const flood = await Promise.all(Array.from({ length: 6 }, () => impatient.completions.create(fields).catch((error) => {
      assert.equal(error.status, 503);
      assert.equal(error.code, "server_overloaded");
      assert.ok(Number(error.headers.get("retry-after-ms")) >= 50);
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
      assert.equal(error.headers.get("x-should-retry"), "true");
      refused++;
    })));
    assert.equal(flood.length, 6);
    assert.ok(refused > 0, "nothing was refused");
    const late = await patient.completions.create(fields);
    assert.equal(late.usage.completion_tokens, 60);
    await busy;
    await stopServer(small);
  },

  // What the client does with the header, without the server's timing: it waits at least as long as it was told.
  async the_client_honours_retry_after_ms() {
    let calls = 0, first, second;
    const fake = createServer((request, response) => {
      if (calls++ === 0) {
        first = Date.now();
        response.writeHead(503, { "retry-after-ms": "300", "retry-after": "1", "x-should-retry": "true", "content-type": "application/json" });
        response.end('{"error": {"message": "busy", "type": "overloaded_error", "param": null, "code": "server_overloaded"}}');
      } else {
        second = Date.now();
        response.writeHead(200, { "content-type": "application/json" });
        response.end('{"object": "list", "data": []}');
      }
    }).listen(0, "127.0.0.1");
    await once(fake, "listening");
    const patient = new OpenAI({ baseURL: `http://127.0.0.1:${fake.address().port}/v1`, apiKey: KEY, maxRetries: 1 });
    await patient.models.list();
    fake.close();
    assert.ok(second - first >= 300 && second - first < 900, `waited ${second - first} ms`);
  },

  // What evaluation harnesses send.
  async echoed_logprobs_sum_to_the_loglikelihood() {
    const text = "It was a sunny day in the village.";
    const echo = await client.completions.create({ model: "demo", prompt: text, echo: true, logprobs: 1, max_tokens: 1, temperature: 0 });
    const response = await fetch(`${main.url}/v1/loglikelihood`, {
      method: "POST",
      headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
      body: JSON.stringify({ input: text }),
    });
    const score = (await response.json()).results[0];
    // Harnesses drop the generated token at the end and what has no number (the start symbol).
    const echoed = echo.choices[0].logprobs.token_logprobs.slice(0, -1).filter((x) => x !== null);
    assert.deepEqual(echoed, score.logprobs.filter((x) => x !== null));
    assert.ok(Math.abs(echoed.reduce((a, b) => a + b, 0) - score.sum) < 1e-9 * Math.abs(score.sum) + 1e-12);
  },
};

console.log(`TAP version 13\n1..${Object.keys(tests).length}`);
let number = 0, failed = 0;
for (const [name, run] of Object.entries(tests)) {
  number++;
  try {
    await run();
    console.log(`ok ${number} - ${name}`);
  } catch (error) {
    failed++;
    console.log(`not ok ${number} - ${name}`);
    console.log(String(error.stack ?? error).replace(/^/gm, "# "));
  }
}
await stopServer(main);
process.exit(failed ? 1 : 0);
