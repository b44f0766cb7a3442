// SPDX-License-Identifier: Apache-2.0
// Servers and pages for the tests of the page.
import assert from "node:assert/strict";
import { once } from "node:events";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const PATIENCE = 1000 * Number(process.env.TEST_PATIENCE ?? 60);
let playwright = null, browser = null;
try {
  playwright = (await import("playwright-core")).chromium;
} catch { /* cannotRun says it. */ }

export function cannotRun() {
  if (!playwright) return "playwright-core is not installed (npm ci in tests/browser)";
  return CHROMIUM ? null : "there is no Chromium (apt install chromium)";
}

export function chromium() {
  return browser;
}

// A server of a model folder; with a key, one that asks for it.
export async function startServer(model, key) {
  const flags = ["serve", "--model", model, "--port", "0", "--log-level", "warn"];
  if (key) {
    const file = join(mkdtempSync(join(tmpdir(), "fathom-keys-")), "keys");
    writeFileSync(file, `${key} name=tests\n`);
    flags.push("--api-key-file", file);
  }
  const server = spawn(process.env.TEST_FATHOM, flags, { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  return { server, url: line.trim().split(" ").pop() };
}

export async function stopServer({ server }) {
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.equal(code, 0);
}

// Opens the page, uses it, and holds that it asked no other host and had nothing to say in the console.
// `mayComplain`: refused requests are part of the test, and browsers log each. Without `reducedMotion` "no-preference"
// nothing is replayed in slow motion, which would take most of the time.
export async function openPage(server, options, use) {
  const { width = 1280, mayComplain = false, shot, ...context } = options;
  browser ??= await playwright.launch({ executablePath: CHROMIUM, args: FLAGS });
  const view = await browser.newContext({ viewport: { width, height: 844 }, reducedMotion: "reduce", ...context });
  const page = await view.newPage(), said = [], strangers = [];
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => {
    const refused = message.text().startsWith("Failed to load resource");
    if (["error", "warning"].includes(message.type()) && !(mayComplain && refused)) said.push(message.text());
  });
  page.on("pageerror", (error) => said.push(error.message));
  page.on("request", (request) => request.url().startsWith(server.url) || request.url().startsWith("data:") || strangers.push(request.url()));
  try {
    await page.goto(`${server.url}/`);
    await use(page);
    if (shot && process.env.TEST_SHOTS) await page.screenshot({ path: join(process.env.TEST_SHOTS, `${shot}.png`), fullPage: true });
    assert.deepEqual(said, []);
    assert.deepEqual(strangers, []);
  } catch (error) {
    error.stack += `\nconsole: ${JSON.stringify(said)}\npage: ${await page.locator("body").innerText({ timeout: 5000 }).catch(String)}`;
    throw error;
  } finally {
    await view.close();
  }
}
