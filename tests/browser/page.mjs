// SPDX-License-Identifier: Apache-2.0
// The page at / in headless Chromium, against running servers of the three kinds of model. Prints TAP.
// Environment: TEST_FATHOM (the binary), TEST_ROOT (the source tree); TEST_SHOTS (a folder for pictures, optional);
// TEST_PATIENCE (seconds before a wait is given up). Skipped without Chromium or playwright-core.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cannotRun, chromium, openPage, startServer, stopServer } from "./rig.mjs";

const ROOT = process.env.TEST_ROOT, KEY = "browser-test-key";
const tests = [];
const test = (name, work) => tests.push([name, work]);
const servers = {};

/* ---- what tests ask a page for ---- */

const lanesOf = (page) => page.locator(".lane");
const textOf = (lane) => lane.locator(".answer").innerText();
const layersOn = (lane) => lane.locator(".strip").first().locator("i").evaluateAll(
  (cells) => cells.flatMap((cell, i) => (cell.classList.contains("on") ? [i] : [])));

async function ready(page) {
  await page.waitForFunction(() => document.querySelectorAll(".lane").length > 1
    && document.getElementById("foresight").textContent && document.querySelector("#chart svg"));
}

async function complete(page) {
  await page.waitForFunction(() => !document.getElementById("run").disabled && document.getElementById("said").textContent);
}

async function plain(page) {
  await page.locator("#more > summary").click();
  await page.uncheck("#slow");
}

/* What the server itself says about a route. */
async function told(server, path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return (await fetch(`${server.url}/${path}`, options)).json();
}

/* ---- language models ---- */

test("opens_with_full_half_quarter_and_auto_and_a_budget", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    assert.deepEqual(await page.locator(".lane h3").allTextContents(), ["Full", "Half", "Quarter", "Auto"]);
    assert.ok(Number(await page.inputValue("#budget")) > 0);
    assert.match(await page.locator("#foresight").innerText(), /^With auto the server would now run \d+ of 12 layers: .* ms predicted/);
    assert.deepEqual(await layersOn(lanesOf(page).nth(1)), [0, 2, 4, 6, 8, 10]);
  });
});

test("one_click_completes_every_lane_with_its_milliseconds", async ({ lm }) => {
  await openPage(lm, { shot: "lm-light" }, async (page) => {
    await ready(page);
    await page.click("#run");
    await complete(page);
    for (let i = 0; i < 4; i++) {
      const lane = lanesOf(page).nth(i);
      assert.match(await textOf(lane), /^Tom said that.{40}/s);
      assert.match(await lane.locator(".total").innerText(), /^[\d.]+$/);
      assert.match(await lane.locator(".parts").innerText(), /queue.*first token.*per token.*tokens\s*64.*predicted/s);
      assert.match(await lane.locator(".verdict").innerText(), /(within|over) [\d.]+ ms/);
    }
    assert.equal(await page.locator("#chart .dot").count(), 4);
    assert.ok(await page.locator("#chart .quality").count(), "the demo has measured quality");
  });
});

test("a_lane_shows_what_the_server_answers_at_its_depth", async ({ lm }) => {
  const body = { prompt: "Tom said that", max_tokens: 64, seed: 11, ignore_eos: true, depth: 6 };
  const answer = await told(lm, "v1/completions", body);
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.click("#run");
    await complete(page);
    const squeeze = (text) => text.replace(/\s+/g, " ").trim();
    assert.equal(squeeze(await textOf(lanesOf(page).nth(1))), squeeze(body.prompt + answer.choices[0].text));
    assert.deepEqual(await layersOn(lanesOf(page).nth(1)), answer.depth.layers);
  });
});

const watchLengths = (page) => page.evaluate(() => {
  window.lengths = new Set();
  new MutationObserver(() => window.lengths.add(document.querySelector(".lane .answer").textContent.length))
    .observe(document.querySelector(".lane .answer"), { childList: true, subtree: true, characterData: true });
});

// The server's own stream, handed on in pieces that wait until the page has drawn the last one.
const handOnInPieces = (page) => page.evaluate(() => {
  const fetched = window.fetch;
  const drawn = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  window.fetch = async (...args) => {
    const answer = await fetched(...args);
    if (!answer.headers.get("content-type").startsWith("text/event-stream")) return answer;
    const whole = new Uint8Array(await answer.arrayBuffer()), step = Math.ceil(whole.length / 10);
    let at = 0;
    const body = new ReadableStream({
      async pull(to) {
        if (at) await drawn();
        to.enqueue(whole.slice(at, at += step));
        if (at >= whole.length) to.close();
      },
    });
    return new Response(body, { status: answer.status, headers: answer.headers });
  };
});

test("text_grows_as_it_streams", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await plain(page);
    await page.fill("#most", "480");
    await handOnInPieces(page);
    await watchLengths(page);
    await page.click("#run");
    await complete(page);
    assert.ok(await page.evaluate(() => window.lengths.size) > 5, "a state for each piece, or nearly");
  });
});

// The page's clock is ours: to it every answer is quick, however slow the machine.
test("quick_answers_are_replayed_in_slow_motion", async ({ lm }) => {
  await openPage(lm, { reducedMotion: "no-preference" }, async (page) => {
    await ready(page);
    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 60000);
    await watchLengths(page);
    await page.click("#run");
    await page.waitForFunction(() => /^slow motion, 1 : \d+/.test(document.getElementById("pace").textContent));
    await page.clock.runFor(5000);
    await complete(page);
    assert.ok(await page.evaluate(() => window.lengths.size) > 10);
  });
});

test("slow_answers_are_shown_as_they_come", async ({ lm }) => {
  await openPage(lm, { reducedMotion: "no-preference" }, async (page) => {
    await ready(page);
    let release;
    const held = new Promise((resolve) => release = resolve);
    await page.route("**/v1/completions", async (route) => { await held; await route.continue(); });
    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 60000);
    await page.evaluate(() => new MutationObserver(() => window.replayed = true)
      .observe(document.getElementById("pace"), { childList: true, characterData: true, subtree: true }));
    await page.click("#run");
    await page.clock.runFor(700);
    release();
    await page.clock.resume();
    await complete(page);
    assert.equal(await page.evaluate(() => window.replayed), undefined);
  });
});

test("reduced_motion_shows_answers_at_once", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.evaluate(() => {
      window.paces = [];
      new MutationObserver(() => window.paces.push(document.getElementById("pace").textContent))
        .observe(document.getElementById("pace"), { childList: true, characterData: true, subtree: true });
    });
    await page.click("#run");
    await complete(page);
    assert.deepEqual(await page.evaluate(() => window.paces), []);
  });
});

test("the_slider_lights_the_layers_that_the_server_would_run_under_every_rule", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    const lane = lanesOf(page).first(), slider = lane.locator("input[type=range]");
    for (const [rule, depth] of [["", 12], ["", 5], ["even", 7], ["ends", 5], ["ends", 1], ["prefix", 4]]) {
      await page.selectOption("#rule", rule);
      await slider.fill(String(depth));
      const fields = { prompt: "a", depth, ...(rule && { plan_rule: rule }) };
      const plan = await told(lm, "v1/plan", fields);
      assert.deepEqual(await layersOn(lane), plan.depth.layers, `${rule} ${depth}`);
      assert.equal(await lane.locator("output").innerText(), `${depth} of 12`);
    }
  });
});

test("lanes_are_added_and_removed", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.click("#add");
    assert.equal(await lanesOf(page).count(), 5);
    assert.ok(await page.locator("#add").isDisabled());
    while (await lanesOf(page).count() > 1) await lanesOf(page).last().locator(".close").click();
    await page.click("#run");
    await complete(page);
    assert.match(await textOf(lanesOf(page).first()), /Tom said that/);
  });
});

test("a_budget_decides_the_depth_of_auto_and_is_reported", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await plain(page);
    const auto = lanesOf(page).last();
    await page.fill("#budget", "60000");
    await page.waitForFunction(() => /12 of 12 layers.* It fits the budget/.test(document.getElementById("foresight").textContent));
    await page.click("#run");
    await complete(page);
    assert.equal((await layersOn(auto)).length, 12);
    assert.equal(await auto.locator(".verdict").innerText(), "✓ within 60000 ms");
    await page.fill("#budget", "0.1");
    await page.waitForFunction(() => /would now run 1 of 12.* would be late/.test(document.getElementById("foresight").textContent));
    await page.click("#run");
    await complete(page);
    assert.equal((await layersOn(auto)).length, 1);
    assert.equal(await auto.locator(".verdict").innerText(), "✗ over 0.10 ms");
    assert.equal((await layersOn(lanesOf(page).first())).length, 12, "an explicit depth is binding");
  });
});

test("a_change_of_depth_shows_in_the_strip_and_in_the_text", async ({ lm }) => {
  const depth = {
    requested: "auto", used: 4, of: 12, layers: [0, 3, 6, 9], rule: "even", reason: "budget",
    changes: [{ at_token: 2, used: 2, layers: [0, 6] }],
  };
  const event = (fields) => `data: ${JSON.stringify({ choices: [], ...fields })}\n\n`;
  const pieces = [" one", " two", " three"].map((text, index) =>
    event({ choices: [{ index: 0, text, finish_reason: index === 2 ? "length" : null }] }));
  const timings = { queue_ms: 1, prefill_ms: 2, decode_ms: 3, total_ms: 6, predicted_ms: 5 };
  const body = [...pieces, event({ depth, timings }), event({ usage: { completion_tokens: 3, prompt_tokens: 3 } }), "data: [DONE]\n\n"].join("");
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.route("**/v1/completions", (route) => route.fulfill({ status: 200, contentType: "text/event-stream", body }));
    await page.click("#run");
    await complete(page);
    const lane = lanesOf(page).last();
    assert.deepEqual(await layersOn(lane), [0, 6]);
    assert.equal(await lane.locator(".strip .dropped").count(), 2);
    assert.match(await textOf(lane), /one two\s*▾ 2 layers\s*three/);
    assert.match(await lane.locator(".reason").innerText(), /2 from token 2 on/);
    assert.match(await lane.locator(".parts").innerText(), /per token\s*1\.50 ms.*predicted\s*5\.00 ms \(\+20 %\)/s);
  });
});

test("a_refusal_is_a_sentence_in_its_lane", async ({ lm }) => {
  await openPage(lm, { mayComplain: true }, async (page) => {
    await ready(page);
    await page.fill("#prompt", "word ".repeat(600));
    await page.click("#run");
    await complete(page);
    const said = await lanesOf(page).first().locator(".problem").innerText();
    assert.match(said, /^[A-Z].* 512.*\.$/s);
  });
});

test("an_overloaded_server_is_a_sentence_that_says_when_to_try_again", async ({ lm }) => {
  const error = { message: "The queue is full; retry later.", type: "overloaded_error", code: "server_overloaded" };
  await openPage(lm, { mayComplain: true }, async (page) => {
    await ready(page);
    await page.route("**/v1/completions", (route) => route.fulfill({
      status: 503, json: { error }, headers: { "retry-after": "2", "retry-after-ms": "1500" },
    }));
    await page.click("#run");
    await complete(page);
    assert.equal(await lanesOf(page).first().locator(".problem").innerText(), "The queue is full; retry later. Try again in 1.50 s.");
  });
});

test("a_server_that_is_gone_is_a_sentence", async ({ lm }) => {
  await openPage(lm, { mayComplain: true }, async (page) => {
    await ready(page);
    await page.route("**/v1/completions", (route) => route.abort("connectionrefused"));
    await page.click("#run");
    await complete(page);
    assert.match(await lanesOf(page).first().locator(".problem").innerText(), /^The server does not answer; .*\?$/);
  });
});

test("the_keyboard_alone_runs_and_moves_depth", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("The ship");
    await page.keyboard.press("Control+Enter");
    await complete(page);
    assert.match(await textOf(lanesOf(page).first()), /^The ship/);
    for (let i = 0; i < 30; i++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement.type) === "range") break;
    }
    await page.keyboard.press("ArrowLeft");
    assert.equal((await layersOn(lanesOf(page).first())).length, 11);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", "the focus is visible");
  });
});

test("escape_stops_what_runs", async ({ lm }) => {
  await openPage(lm, { mayComplain: true }, async (page) => {
    await ready(page);
    await page.route("**/v1/completions", () => {}); // never answered
    await page.keyboard.press("Control+Enter");
    await page.waitForFunction(() => !document.getElementById("stop").disabled);
    await page.keyboard.press("Escape");
    await complete(page);
    assert.deepEqual(await page.locator(".lane .problem").allTextContents(), Array(4).fill("Stopped."));
  });
});

test("every_field_has_a_label", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    const bare = await page.evaluate(() => [...document.querySelectorAll("input, select, textarea, button")]
      .filter((field) => !(field.labels?.[0]?.textContent.trim() || field.ariaLabel || field.textContent.trim())).map((field) => field.outerHTML));
    assert.deepEqual(bare, []);
  });
});

test("load_shows_in_the_figures_and_ends", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.fill("#texts", "2");
    await page.check("#load");
    await page.waitForFunction(() => /[1-9]\d* %/.test(document.querySelectorAll("#figures dd")[1].textContent));
    await page.waitForFunction(() => document.querySelector("#history .depth-dot"));
    await page.keyboard.press("Escape");
    assert.equal(await page.isChecked("#load"), false);
    assert.equal(await page.locator("#load-said").innerText(), "The load was stopped.");
    await page.waitForFunction(() => document.querySelectorAll("#figures dd")[2].textContent === "0");
  });
});

test("a_hidden_page_makes_no_load_and_asks_nothing", async ({ lm }) => {
  await openPage(lm, {}, async (page) => {
    await ready(page);
    await page.fill("#texts", "2");
    await page.check("#load");
    await page.waitForFunction(() => /[1-9]\d* %/.test(document.querySelectorAll("#figures dd")[1].textContent));
    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", { value: true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    assert.equal(await page.isChecked("#load"), false);
    await page.waitForFunction(() => !document.getElementById("run").disabled);
    await page.waitForTimeout(2000); // what was on its way
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await page.waitForTimeout(3000);
    assert.deepEqual(asked, []);
  });
});

test("a_wrong_number_is_refused_with_a_sentence", async ({ lm }) => {
  await openPage(lm, { mayComplain: true }, async (page) => {
    await ready(page);
    await page.fill("#most", "-3");
    await page.click("#run");
    await complete(page);
    assert.match(await lanesOf(page).first().locator(".problem").innerText(), /max_tokens.*\.$/s);
  });
});

test("a_key_is_asked_for_used_and_kept_in_the_tab_only", async ({ locked }) => {
  await openPage(locked, { mayComplain: true }, async (page) => {
    await page.waitForSelector("#access:not([hidden])");
    assert.equal(await page.evaluate(() => document.activeElement.id), "key");
    await page.keyboard.type("wrong");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => /key/i.test(document.getElementById("problem").textContent));
    await page.fill("#key", KEY);
    await page.keyboard.press("Enter");
    await ready(page);
    assert.ok(await page.locator("#access").isHidden());
    await page.click("#run");
    await complete(page);
    assert.match(await textOf(lanesOf(page).first()), /^Tom said that./);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("fathom-key")), KEY);
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  });
});

/* ---- both stacks ---- */

test("a_translation_has_two_sliders_and_its_beams_side_by_side", async ({ translate }) => {
  await openPage(translate, { shot: "translate-light" }, async (page) => {
    await ready(page);
    const half = lanesOf(page).nth(1);
    assert.equal(await half.locator("input[type=range]").count(), 2);
    assert.deepEqual(await half.locator("output").allTextContents(), ["6 of 12", "3 of 6"]);
    await page.click("#run");
    await complete(page);
    for (let i = 0; i < 4; i++) {
      const items = await lanesOf(page).nth(i).locator(".beams li").allTextContents();
      assert.equal(items.length, 3);
      assert.match(items[0], i < 2 ? /^I .* -\d\.\d\d$/ : / -\d\.\d\d$/); // shallow ones may write anything
    }
  });
});

test("a_greedy_translation_streams", async ({ translate }) => {
  await openPage(translate, {}, async (page) => {
    await ready(page);
    await page.fill("#beams", "1");
    const asked = page.waitForRequest("**/v1/completions");
    await page.click("#run");
    assert.equal((await asked).postDataJSON().stream, true);
    await complete(page);
    assert.match(await textOf(lanesOf(page).first()), /^I .*\.$/);
  });
});

test("tuned_plans_light_what_the_server_says", async ({ translate }) => {
  const depth = { encoder: 6, decoder: 3 };
  const plan = await told(translate, "v1/plan", { prompt: "a", depth, plan_rule: "tuned" });
  await openPage(translate, {}, async (page) => {
    await ready(page);
    await page.selectOption("#rule", "tuned");
    const wanted = plan.depth.layers.encoder.join();
    await page.waitForFunction((layers) => [...document.querySelectorAll(".lane")[1].querySelector(".strip").children]
      .flatMap((cell, i) => (cell.className === "on" ? [i] : [])).join() === layers, wanted);
  });
});

/* ---- encoders ---- */

test("classes_stand_side_by_side_and_sum_to_one", async ({ encoder }) => {
  await openPage(encoder, { shot: "encoder-light" }, async (page) => {
    await ready(page);
    await page.click("#run");
    await complete(page);
    for (let i = 0; i < 4; i++) {
      const rows = await lanesOf(page).nth(i).locator(".bars tr").allInnerTexts();
      assert.deepEqual(rows.map((row) => row.split("\t")[0]), ["good", "bad"]);
      const all = rows.map((row) => Number(row.split("\t")[1])).reduce((a, b) => a + b);
      assert.ok(Math.abs(all - 1) < 0.002, `${all}`);
    }
  });
});

test("masks_are_filled_at_every_depth", async ({ encoder }) => {
  await openPage(encoder, {}, async (page) => {
    await ready(page);
    await page.selectOption("#task", "fill-mask");
    assert.match(await page.inputValue("#prompt"), /<mask>/);
    const answer = await told(encoder, "fill-mask", { input: await page.inputValue("#prompt"), depth: 3, top_k: 5 });
    await page.click("#run");
    await complete(page);
    const tokens = await lanesOf(page).nth(1).locator(".bars td:first-child").allTextContents();
    assert.deepEqual(tokens, answer.results[0].map((fill) => fill.token.trim()));
  });
});

test("texts_are_compared_at_every_depth", async ({ encoder }) => {
  await openPage(encoder, {}, async (page) => {
    await ready(page);
    await page.selectOption("#task", "embeddings");
    const input = [await page.inputValue("#prompt"), await page.inputValue("#second")];
    const { data } = await told(encoder, "v1/embeddings", { input, depth: 3 });
    const dot = data[0].embedding.reduce((all, value, i) => all + value * data[1].embedding[i], 0); // both have length 1
    await page.click("#run");
    await complete(page);
    const figures = await lanesOf(page).nth(1).locator(".figure").allTextContents();
    assert.ok(Math.abs(Number(figures[0]) - dot) < 1e-3, `${figures[0]} is not ${dot}`);
    const full = await lanesOf(page).first().locator(".figure").allTextContents();
    assert.equal(full[1], "1.0000");
  });
});

/* ---- how it looks ---- */

for (const kind of ["lm", "translate", "encoder"]) {
  test(`${kind}_fits_a_phone_in_the_dark`, async (all) => {
    await openPage(all[kind], { width: 390, colorScheme: "dark", shot: `${kind}-phone-dark` }, async (page) => {
      await ready(page);
      await page.click("#run");
      await complete(page);
      const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide <= seen, `${wide} of ${seen}`);
    });
  });
}

/* The lowest contrast of visible text with what is behind it (WCAG 2, 4.5 wanted). */
function worstContrast() {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((all, v, i) => all + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const faded = (node) => node.closest(":disabled, .stale, [aria-hidden=true]");
  const own = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const all = [...document.body.querySelectorAll("*")].filter((node) => own(node) && node.checkVisibility() && !faded(node) && !node.closest("svg, script, template"));
  const scored = all.map((node) => {
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.outerHTML.slice(0, 120)];
  });
  return scored.sort((a, b) => a[0] - b[0])[0];
}

for (const colorScheme of ["light", "dark"]) {
  test(`text_has_contrast_in_the_${colorScheme}`, async ({ lm }) => {
    await openPage(lm, { colorScheme, shot: `lm-${colorScheme}-wide` }, async (page) => {
      await ready(page);
      await page.fill("#budget", "0.1"); // so that a verdict in red is there
      await page.click("#run");
      await complete(page);
      const [worst, where] = await page.evaluate(worstContrast);
      assert.ok(worst >= 4.5, `${worst.toFixed(2)} at ${where}`);
    });
  });
}

/* ---- running them ---- */

async function startAll() {
  const models = { lm: "deploy/demo", translate: "deploy/demo-translate", encoder: "tests/data/tiny-encoder" };
  const started = Object.entries(models).map(async ([name, folder]) => { servers[name] = await startServer(join(ROOT, folder)); });
  started.push((async () => { servers.locked = await startServer(join(ROOT, models.lm), KEY); })());
  await Promise.all(started);
}

async function run(number, name, work) {
  const started = Date.now();
  try {
    await work(servers);
    console.log(`ok ${number} - ${name} # ${((Date.now() - started) / 1000).toFixed(2)} s`);
    return 0;
  } catch (error) {
    console.log(`not ok ${number} - ${name}\n${String(error.stack ?? error).replace(/^/gm, "# ")}`);
    return 1;
  }
}

async function main() {
  const reason = cannotRun() ?? (existsSync(process.env.TEST_FATHOM ?? "") ? null : "there is no binary");
  if (reason) return console.log(`1..0 # SKIP ${reason}`);
  const only = process.argv.slice(2), chosen = tests.filter(([name]) => !only.length || only.includes(name));
  console.log(`1..${chosen.length}`);
  let failed = 0;
  try {
    await startAll();
    for (const [i, [name, work]] of chosen.entries()) failed += await run(i + 1, name, work);
  } finally {
    await (await chromium())?.close();
    for (const server of Object.values(servers)) await stopServer(server);
  }
  process.exitCode = failed ? 1 : 0;
}

await main();
