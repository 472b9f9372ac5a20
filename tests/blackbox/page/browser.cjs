// browser.cjs PLAYWRIGHT CHROMIUM URL OUT_DIR: uses the demo page as people would, in two tabs and on a phone; prints one
// JSON line of what was shown, and leaves screenshots in OUT_DIR.
const [, , playwright, executablePath, url, out] = process.argv;
const { chromium } = require(playwright);

const PATIENCE_MS = 15_000;
const faults = [];

/** A page that is connected in `encoding` and has joined its channel. */
async function open(context, name, encoding) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('console', (said) => { if (['error', 'warning'].includes(said.type())) faults.push(`${name}: ${said.text()}`); });
  page.on('pageerror', (error) => faults.push(`${name}: ${error}`));
  page.on('response', (response) => { if (response.status() >= 400) faults.push(`${name}: ${response.status()} ${response.url()}`); });
  await page.goto(url);
  await page.locator(`input[value=${encoding}]`).check({ force: true });
  await page.locator('#status[data-state=connected]').waitFor();
  await page.locator('#comments .note', { hasText: 'joined room:42' }).last().waitFor();
  await page.fill('input[name=author]', name);
  return page;
}

async function say(page, text) {
  await page.fill('#comment input[name=text]', text);
  await page.click('#comment button');
}

/** Text of every comment shown, once there are `count`. */
async function comments(page, count) {
  await page.locator('#comments li:not(.note)').nth(count - 1).waitFor();
  return page.locator('#comments li:not(.note)').evaluateAll((items) => items.map((item) =>
    `${item.className} ${item.querySelector('b').textContent}: ${item.querySelector('.text').textContent}`));
}

/** Submits a form with some fields changed, and gives what its result says, without the time it took. */
async function submit(page, form, fields = {}) {
  for (const [name, value] of Object.entries(fields)) {
    const field = page.locator(`${form} [name=${name}]`);
    if (name === 'version') await field.selectOption(value);
    else await field.fill(value);
  }
  await page.click(`${form} button`);
  const result = page.locator(`${form} output, ${form} + output`);
  await result.filter({ hasNotText: /^(sent)?$/ }).waitFor();
  return (await result.textContent()).replace(/ · [0-9.]+ ms$/, '');
}

const receipts = async (page, count) => {
  await page.locator('#receipts li').nth(count - 1).waitFor();
  return page.locator('#receipts li').evaluateAll((items) => items.map((item) => [...item.children].map((part) => part.textContent).join(' ')));
};

/** Closes the page's socket with `code` in the gateway's stead, and gives what the page does next. */
async function closedWith(context, code) {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  let close;
  await page.routeWebSocket('**/ws', (socket) => {
    socket.connectToServer();
    close = () => socket.close({ code, reason: 'said by the test' });
  });
  await page.goto(url);
  await page.locator('#comments .note').waitFor();
  await close();
  await page.locator('#status', { hasText: 'said by the test' }).waitFor();
  const said = (await page.locator('#status').textContent()).replace(/[0-9.]+ s/, '_ s');
  if (said.startsWith('Reconnecting')) await page.locator('#comments .note').nth(1).waitFor(); // it has joined again
  const state = await page.locator('#status').getAttribute('data-state');
  await page.close();
  return [said, state];
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  try {
    const desk = { viewport: { width: 1280, height: 1100 } };
    const light = await browser.newContext({ ...desk, colorScheme: 'light' });
    const dark = await browser.newContext({ ...desk, colorScheme: 'dark' });
    const json = await open(light, 'Ada', 'json');
    const protobuf = await open(dark, 'Bob', 'protobuf');
    const seen = {};

    await say(json, 'Hello from JSON ☃ <b>');
    await comments(protobuf, 1);
    await say(protobuf, 'Hello from protobuf');
    seen.comments = { json: await comments(json, 2), protobuf: await comments(protobuf, 2) };
    seen.orders = {
      json: await submit(json, '#order', { orderId: 'o-1', cents: '1999' }),
      protobuf: await submit(protobuf, '#order', { orderId: 'o-2', cents: '250', version: '2.0', currency: 'SEK' }),
    };
    seen.receipts = { json: await receipts(json, 1), protobuf: await receipts(protobuf, 1) };
    seen.quotes = { json: await submit(json, '#quote'), protobuf: await submit(protobuf, '#quote') };
    seen.refused = { json: await submit(json, '#order', { cents: '0' }), protobuf: await submit(protobuf, '#order', { cents: '0' }) };
    seen.stock = { json: await submit(json, '#inventory'), protobuf: await submit(protobuf, '#inventory') };
    seen.users = { json: await submit(json, '#user-created'), protobuf: await submit(protobuf, '#user-created') };
    seen.byHand = await submit(json, '#raw', { frame: '{"messageType":"NOT_THERE","payload":{}}' });
    await protobuf.locator('#frames summary', { hasText: 'HANDLED' }).first().click();
    seen.hex = await protobuf.locator('#frames pre').first().textContent();
    await json.locator('#rtt', { hasText: 'ms' }).waitFor();
    seen.session = await json.locator('#session').textContent();

    const phone = await browser.newContext({ viewport: { width: 390, height: 844 }, colorScheme: 'light', isMobile: true, hasTouch: true });
    const small = await open(phone, 'Cy', 'json');
    await say(small, 'From the bus');
    await comments(json, 3);
    seen.sideways = await small.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    for (const [name, page] of Object.entries({ light: json, dark: protobuf, phone: small })) {
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: `${out}/page-${name}.png`, fullPage: true });
    }
    seen.faults = faults;
    seen.closed = { 4000: await closedWith(light, 4000), 4500: await closedWith(light, 4500) };
    console.log(JSON.stringify(seen));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error, faults);
  process.exitCode = 1;
});
