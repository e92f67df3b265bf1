// Pages that change while they are open.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { cancel, countMutations, cuttable, demo, ended, isLive, job, launch, open, running, showNew, submit, until } from './support.mjs';

let browser;

before(async () => {
  browser = await launch();
  await ended((await submit('process-data', { category: 'rain' })).id); // an empty list has no rows that stay
});

after(() => browser?.close());

test('change is seen within half a second', async () => {
  const page = await open(browser, '/dashboard/jobs');
  const delays = [];
  for (let round = 0; round < 6; round++) {
    const { id } = await submit('sleep', { seconds: 600 });
    await page.goto(`${demo}/dashboard/jobs/${id}`);
    await isLive(page);
    await page.evaluate(() => {
      new MutationObserver(() => {
        if (!window.seen && document.querySelector('#state .canceled')) window.seen = Date.now();
      }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    });
    await cancel(id);
    await page.locator('#state .canceled').waitFor();
    delays.push((await page.evaluate(() => window.seen)) - Date.parse((await job(id)).lastUpdatedAt));
  }
  delays.sort((a, b) => a - b);
  console.log(`seen after ${delays.join(', ')} ms`);
  assert.ok(delays[delays.length >> 1] <= 500, `${delays} ms`);
  await page.context().close();
});

test('paused page does not change', async () => {
  const page = await open(browser, '/dashboard/jobs');
  await isLive(page);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.locator('html[data-state=paused]').waitFor({ state: 'attached' });
  await countMutations(page);
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await page.waitForTimeout(2500); // longer than the clock and the pause between two events
  assert.equal(await page.evaluate(() => window.mutations), 0);
  await page.getByRole('button', { name: 'Pause' }).click();
  await isLive(page);
  await showNew(page, id);
  await page.context().close();
});

test('change of a page leaves focus, text and open parts alone', async () => {
  const page = await open(browser, '/dashboard/jobs');
  await isLive(page);
  const rows = () => page.locator('tbody tr').evaluateAll((rows) => rows.map((row) => row.id));
  const before = await rows();
  const box = page.getByRole('textbox', { name: 'Id or text' });
  await box.fill('typed');
  await box.evaluate((input) => input.setSelectionRange(1, 3));
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await page.getByRole('button', { name: /new$/ }).waitFor();
  assert.equal(await box.inputValue(), 'typed');
  assert.deepEqual(await page.evaluate(() => [document.activeElement.name, document.activeElement.selectionStart, document.activeElement.selectionEnd]), ['q', 1, 3]);
  assert.deepEqual(await rows(), before, 'no row moved');
  await page.context().close();

  const active = await open(browser, `/dashboard/jobs/${await running()}`);
  await isLive(active);
  await active.getByText('Cancel…').click();
  const percent = () => active.locator('#state progress').first().getAttribute('value');
  const first = await percent();
  await active.waitForFunction((first) => document.querySelector('#state progress').getAttribute('value') !== first, first);
  assert.ok(await active.getByRole('button', { name: 'Cancel the job' }).isVisible(), 'the confirmation stays open');
  await active.context().close();
});

test('row that left its list is marked and stays as it is', async () => {
  const id = await running();
  const page = await open(browser, '/dashboard/jobs?status=InProgress');
  await isLive(page);
  const row = page.locator(`#job-${id}`);
  await row.waitFor();
  await cancel(id);
  await page.locator(`#job-${id}[data-left]`).waitFor();
  assert.match(await row.getAttribute('title'), /^No longer updated/);
  const text = await row.innerText();
  // Times change once a second.
  await setTimeout(2100);
  assert.equal(await row.innerText(), text);
  await page.context().close();
});

test('page without a stream polls', async () => {
  const page = await open(browser, '/dashboard/nothing');
  await page.route('**/dashboard/live?*', (route) => route.fulfill({ status: 503 }));
  await page.goto(`${demo}/dashboard/jobs`);
  await page.locator('html[data-state=polling]').waitFor({ state: 'attached' });
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await showNew(page, id);
  await page.unroute('**/dashboard/live?*');
  await isLive(page); // it tries a stream again
  await page.context().close();
});

test('lost connection is shown and heals', async (t) => {
  const proxy = await cuttable(t);
  const page = await open(browser, '/dashboard/jobs', { address: proxy.address });
  await isLive(page);
  const rows = await page.locator('tbody tr').count();
  proxy.cut();
  await page.getByText(/connection is lost|server does not answer/).waitFor({ timeout: 5000 });
  assert.match(await page.locator('#live-text').textContent(), /^Stale since \d\d:\d\d:\d\d$/);
  assert.equal(await page.locator('tbody tr').count(), rows, 'the last data stays');
  proxy.heal();
  await page.locator('#banner').waitFor({ state: 'hidden', timeout: 15000 });
  await isLive(page);
  await page.context().close();
});

test('silent connection is noticed and heals', async (t) => {
  const proxy = await cuttable(t);
  const page = await open(browser, '/dashboard/types', { address: proxy.address });
  await isLive(page);
  proxy.freeze();
  await page.locator('html[data-state=stale]').waitFor({ state: 'attached', timeout: 10_000 });
  proxy.cut();
  proxy.heal();
  await isLive(page);
  await page.context().close();
});

test('seven visible pages load and stay up to date', async () => {
  const context = await browser.newContext();
  const pages = [];
  for (let number = 0; number < 7; number++) {
    const page = await context.newPage();
    await page.goto(`${demo}/dashboard/jobs`);
    await page.locator('html[data-state=live], html[data-state=polling]').waitFor({ state: 'attached' });
    pages.push(page);
  }
  const states = () => Promise.all(pages.map((page) => page.locator('html').getAttribute('data-state')));
  // An answer that takes long makes a page stale for a moment, and another page may take its stream.
  await until('four live pages', async () => (await states()).sort().join(' ') === 'live live live live polling polling polling');
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await Promise.all(pages.map((page) => page.getByRole('button', { name: /new$/ }).waitFor()));
  // A page that ends gives its stream to one that polls.
  await pages[0].close();
  pages.shift();
  await until('four live pages again', async () => (await states()).filter((state) => state === 'live').length === 4);
  await context.close();
});
