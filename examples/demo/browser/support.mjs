// A browser for the tests, and jobs of the demo.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect, createServer } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { chromium } from 'playwright-core';

/** The address of a running demo. */
export const demo = process.env.DEMO_URL;

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Starts a browser that finds the hosts of `.test` on this machine. */
export function launch() {
  const args = ['--no-sandbox', '--host-resolver-rules=MAP *.test 127.0.0.1'];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args });
}

/** Opens a page that records violations of its content security policy and errors of its scripts. */
export async function open(browser, path, { address = demo, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && page.problems.push(message.text()));
  if (options.javaScriptEnabled !== false) {
    await page.addInitScript(() => {
      document.addEventListener('securitypolicyviolation', (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    });
  }
  await page.goto(address + path);
  return page;
}

/** Waits until the page has its stream. */
export const isLive = (page) => page.locator('html[data-state=live]').waitFor({ state: 'attached' });

/** The tags of the rules that axe checks. */
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** The violations that axe finds, one line each. It runs in an isolated world, which the page's policy does not restrict. */
export async function accessibility(page, rules = { type: 'tag', values: TAGS }) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const evaluate = (expression) => session.send('Runtime.evaluate', {
    expression, contextId: executionContextId, awaitPromise: true, returnByValue: true,
  });
  await evaluate(axe);
  // Targets of at least 24 px, or with as much space around them.
  const options = JSON.stringify({ runOnly: rules, ...(rules.type === 'tag' && { rules: { 'target-size': { enabled: true } } }) });
  const { result, exceptionDetails } = await evaluate(
    `axe.run(document, ${options}).then(({ violations }) => violations.flatMap(
      ({ id, nodes }) => nodes.map(({ target, any }) => id + ' ' + target + ' ' + any.map(({ message }) => message))))`,
  );
  await session.detach();
  if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
  return result.value;
}

async function request(method, path, body) {
  const headers = body === undefined ? {} : { 'content-type': 'application/json' };
  const response = await fetch(demo + path, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

export const submit = (path, body) => request('POST', `/api/${path}`, body);
export const job = (id) => request('GET', `/jobs/${id}`);
export const cancel = (id) => request('POST', `/jobs/${id}/cancel`);

/** Waits for the end of a job. */
export const ended = (id) => request('GET', `/jobs/${id}?wait=30`);

/** The rules about colors and layout. */
export const LOOK = { type: 'rule', values: ['color-contrast', 'scrollable-region-focusable', 'target-size'] };

/** Counts the changes of the document in `window.mutations`. */
export const countMutations = (page) => page.evaluate(() => {
  window.mutations = 0;
  const options = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver((list) => (window.mutations += list.length)).observe(document, options);
});

/** Presses Tab until the element with this text or name has the focus, which must be visible. */
export async function tabTo(page, name) {
  for (let presses = 0; presses < 80; presses++) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => {
      const { activeElement } = document;
      const { outlineStyle, outlineWidth } = getComputedStyle(activeElement);
      return { text: activeElement.textContent, name: activeElement.name, isVisible: outlineStyle !== 'none' && outlineWidth !== '0px' };
    });
    if (!focused.isVisible) throw new Error(`${focused.text} has no visible focus`);
    if (focused.text === name || focused.name === name) return;
  }
  throw new Error(`${name} cannot be reached`);
}

/** Polls `isTrue` every 20 ms. Throws after 20 s. */
export async function until(what, isTrue) {
  for (const end = Date.now() + 20_000; Date.now() < end; await setTimeout(20)) {
    if (await isTrue()) return;
  }
  throw new Error(`${what}: not within 20 s`);
}

/** Lets a list show its new jobs until it shows this one: jobs of other tests may come before it. */
export const showNew = (page, id) => until(`job ${id} in the list`, async () => {
  if (await page.locator(`#job-${id}`).count()) return true;
  const button = page.getByRole('button', { name: /new$/ });
  // The button may disappear before it is clicked.
  if (await button.isVisible()) await button.click({ timeout: 1000 }).catch(() => {});
  return false;
});

/** Submits a job that runs, and waits for its start. */
export async function running() {
  const { id } = await submit('sleep', { seconds: 600 });
  await until('start of the job', async () => {
    const { status, progress } = await job(id);
    return status === 'InProgress' && progress;
  });
  return id;
}

/** A proxy to the demo whose connections can be cut. It ends with the test. */
export async function cuttable(test) {
  const open = new Set();
  let state = 'healthy';
  const server = createServer((client) => {
    if (state === 'cut') return client.destroy();
    if (state === 'frozen') return open.add(client.on('error', () => {}));
    const upstream = connect(new URL(demo).port, '127.0.0.1');
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      open.add(socket);
      socket.pipe(other);
      socket.on('error', () => other.destroy());
      socket.on('close', () => (open.delete(socket), other.destroy()));
    }
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const destroy = () => open.forEach((socket) => socket.destroy());
  test.after(() => (destroy(), server.close()));
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    cut: () => ((state = 'cut'), destroy()),
    heal: () => (state = 'healthy'),
    // Connections stay open, new ones too, and nothing arrives any more.
    freeze: () => ((state = 'frozen'), open.forEach((socket) => (socket.unpipe(), socket.pause()))),
  };
}
