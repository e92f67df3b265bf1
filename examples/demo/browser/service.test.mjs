// A service whose store has an outage, and one under load.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { isLive, launch, open } from './support.mjs';

const address = process.env.SERVICE_URL;
const post = async (path) => (await fetch(address + path, { method: 'POST' })).text();
let browser;

before(async () => {
  browser = await launch();
});

after(async () => {
  await post('/outage/false');
  await browser?.close();
});

test('outage of the store is shown within 5 s on every page', async () => {
  const { id } = await (await fetch(`${address}/work`, { method: 'POST' })).json();
  const paths = ['', '/jobs', `/jobs/${id}`, '/types', '/types/Work', '/workers', '/failures', '/operations', '/health'];
  const pages = await Promise.all(paths.map((path) => open(browser, `/dashboard${path}`, { address })));
  await Promise.all(pages.map(isLive));
  const begun = Date.now();
  await post('/outage/true');
  const noticed = await Promise.all(pages.map(async (page, at) => {
    await page.locator('#banner', { hasText: 'The job store does not answer' }).waitFor({ timeout: 15000 }).catch((error) => assert.fail(`${paths[at]}: ${error}`));
    // The page of health checks stays up to date: its checks are those of the process.
    if (paths[at] !== '/health') assert.match(await page.locator('#live-text').textContent(), /^Stale since \d\d:\d\d:\d\d$/, paths[at]);
    return Date.now() - begun;
  }));
  console.log(`outage shown after ${noticed.join(', ')} ms`);
  noticed.forEach((after, at) => assert.ok(after <= 5000, `${paths[at]}: ${after} ms`));
  await post('/outage/false');
  await Promise.all(pages.map((page) => page.locator('#banner').waitFor({ state: 'hidden' })));
  await Promise.all(pages.map(isLive));
  await Promise.all(pages.map((page) => page.context().close()));
});

test('list stays calm at 5 000 changes a second', async () => {
  const SECONDS = 8;
  const page = await open(browser, '/dashboard/jobs', { address });
  await isLive(page);
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  let patches = 0;
  session.on('Network.eventSourceMessageReceived', ({ data }) => (patches += JSON.parse(data).regions.length > 0 ? 1 : 0));
  const heap = async () => {
    await session.send('HeapProfiler.collectGarbage');
    return (await session.send('Runtime.getHeapUsage')).usedSize;
  };
  await post('/load/1');
  const before = await heap();
  await browser.startTracing(page, { categories: ['toplevel'] });
  patches = 0;
  const changes = await post(`/load/${SECONDS}`);
  const seen = patches;
  const trace = JSON.parse(await browser.stopTracing()).traceEvents;
  const grown = (await heap()) - before;
  // The time on a processor, which other work on the machine does not make longer.
  const renderers = new Set(trace.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`));
  const tasks = trace.filter(({ pid, tid, tdur }) => tdur && renderers.has(`${pid} ${tid}`)).map(({ tdur }) => tdur / 1000);
  const longest = Math.max(...tasks);
  console.log(`${changes} changes a second: ${seen} patches in ${SECONDS} s, longest task ${longest.toFixed(1)} ms, heap ${(grown / 1024).toFixed(0)} KiB larger`);
  assert.ok(changes >= 2500, `${changes} changes a second are no load`);
  assert.ok(seen > SECONDS && seen <= 5 * SECONDS, `${seen} patches`);
  assert.ok(tasks.length > 0 && longest <= 50, `${longest} ms`);
  assert.ok(grown < 1024 * 1024, `${grown} bytes`);
  await page.context().close();
});
