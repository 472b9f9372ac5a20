// browser.mjs PLAYWRIGHT CHROMIUM WS_URL: uses the example page in Chromium against a gateway with the demo's services, cuts
// its connection while others talk, and prints one JSON line of what was shown. Needs `npm run build` and `tsc -p examples`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { connect as dial, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { connect } from "@trestle/client";
import { CommentSchema } from "../build/examples/build/stubs/typescript/chat/v1/chat_pb.js";

const PATIENCE_MS = 15_000;
const [, , playwright, executablePath, gateway] = process.argv;
const { chromium } = createRequire(import.meta.url)(playwright);
const faults = [];

/** A way to the gateway that can be cut. */
async function cuttable({ hostname, port }) {
  const open = new Set();
  const proxy = createServer((near) => {
    const far = dial(Number(port), hostname);
    const both = [near, far];
    for (const side of both) side.on("error", () => {}).on("close", () => both.forEach((other) => other.destroy()));
    near.pipe(far).pipe(near);
    open.add(both);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const cut = () => open.forEach((both) => both.forEach((side) => side.destroy()));
  return { url: `ws://127.0.0.1:${proxy.address().port}/ws`, cut, close: () => (cut(), proxy.close()) };
}

/** Serves the page, and gives its address. */
async function serve() {
  const server = spawn(process.execPath, [fileURLToPath(new URL("../examples/serve.mjs", import.meta.url)), "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(server.stdout, "data");
  return { url: line.toString().trim(), close: () => server.kill() };
}

async function fill(page, form, text) {
  await page.fill(`#${form} input`, text);
  await page.click(`#${form} button`);
}

const shown = async (page, kind, count) => {
  await page.locator(`#log .${kind}`).nth(count - 1).waitFor();
  return page.locator(`#log .${kind}`).allTextContents();
};

const [way, files, browser] = await Promise.all([cuttable(new URL(gateway)), serve(), chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] })]);
const other = connect(gateway, { WebSocket });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("console", (said) => { if (said.type() === "error" && !said.text().includes("WebSocket")) faults.push(said.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  const state = (name, text = "") => page.locator(`#state[data-state=${name}]`, { hasText: text }).waitFor();
  await page.goto(`${files.url}?channel=room:page&gateway=${encodeURIComponent(way.url)}`);
  await state("connected");
  const seen = {};
  const say = (text) => other.publish("room:page", CommentSchema, { author: "other", text });
  await say("before");
  await shown(page, "comment", 1);
  way.cut();
  await say("missed");
  await state("connected", "resumed");
  await fill(page, "comment", "after");
  seen.comments = await shown(page, "comment", 3);
  await fill(page, "quote", "a1");
  seen.quotes = (await shown(page, "quote", 1)).map((text) => text.replace(/\d+/, "N").replace(/\d+/, "N"));
  await fill(page, "order", "o1");
  seen.receipts = await shown(page, "receipt", 1);
  await fill(page, "order", "");
  seen.refused = await shown(page, "refused", 1);
  seen.presence = await page.locator("#presence").textContent();
  // Away for a moment: a signal of the browser ends the wait.
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await page.click("#close");
  await state("closed");
  // A page that is left ends its session at once.
  await page.goto(`${files.url}?channel=room:page&gateway=${encodeURIComponent(way.url)}`);
  await state("connected");
  const watched = other.channel("room:page", { presence: true });
  await watched.joined();
  const left = new Promise((resolve) => watched.onPresence(({ left }) => left.length > 0 && resolve(true)));
  await page.close();
  seen.left = await left;
  seen.faults = faults;
  console.log(JSON.stringify(seen));
} finally {
  await Promise.all([browser.close(), other.close()]);
  way.close();
  files.close();
}
