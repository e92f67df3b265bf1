// The dashboard in a real browser: accessibility, security policy, size, live changes.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessibility, cancel, cuttable, demo, ended, isLive, job, launch, open, running, submit } from './support.mjs';

let browser;
let pages; // path and name of each page

before(async () => {
  browser = await launch();
  const failed = await submit('unreliable', { failureRate: 1, seed: 7 });
  const done = await submit('process-data', { category: 'rain' });
  await submit('unreliable', { failureRate: 0.5, seed: 11 });
  const active = await running();
  await ended(failed.id);
  await ended(done.id);
  pages = {
    overview: '/dashboard',
    jobs: '/dashboard/jobs',
    'jobs-empty': '/dashboard/jobs?status=Canceled&name=Traced',
    'job-running': `/dashboard/jobs/${active}`,
    'job-failed': `/dashboard/jobs/${failed.id}`,
    'job-done': `/dashboard/jobs/${done.id}`,
    'not-found': '/dashboard/nothing',
  };
});

after(() => browser?.close());

for (const theme of ['light', 'dark']) {
  test(`pages are accessible in the ${theme} theme`, async () => {
    for (const [name, path] of Object.entries(pages)) {
      const page = await open(browser, path, { colorScheme: theme });
      if (name !== 'not-found') await isLive(page);
      for (const width of [1280, 320]) {
        await page.setViewportSize({ width, height: 900 });
        assert.deepEqual(await accessibility(page), [], `${name} at ${width} px: axe`);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(overflow <= 0, `${name} at ${width} px: ${overflow} px wider than the window`);
        if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-${theme}-${width}.png` });
      }
      const problems = page.problems.filter((problem) => !(name === 'not-found' && problem.includes('404')));
      assert.deepEqual(problems, [], `${name}: policy and scripts`);
      await page.context().close();
    }
  });
}

test('first visit is small and asks no other host', async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send('Network.enable');
  const requests = new Map();
  let bytes = 0;
  session.on('Network.requestWillBeSent', ({ requestId, request }) => requests.set(requestId, request.url));
  session.on('Network.loadingFinished', ({ encodedDataLength }) => (bytes += encodedDataLength));
  session.on('Network.dataReceived', ({ requestId, encodedDataLength }) => {
    if (requests.get(requestId).includes('/live?')) bytes += encodedDataLength;
  });
  await page.goto(`${demo}/dashboard/jobs`);
  await isLive(page);
  const urls = [...requests.values()];
  assert.ok(urls.every((url) => url.startsWith(demo)), urls.join(' '));
  assert.ok(urls.length <= 6, urls.join(' '));
  assert.ok(bytes <= 60 * 1024, `${bytes} bytes`);
  console.log(`first visit: ${urls.length} requests, ${bytes} bytes`);
  await context.close();
});

test('change is seen within half a second', async () => {
  const delays = [];
  for (let round = 0; round < 10; round++) {
    const { id } = await submit('sleep', { seconds: 600 });
    const view = await open(browser, `/dashboard/jobs/${id}`);
    await isLive(view);
    await view.evaluate(() => {
      new MutationObserver(() => {
        if (!window.seen && document.querySelector('#state .canceled')) window.seen = Date.now();
      }).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    });
    await cancel(id);
    await view.locator('#state .canceled').waitFor();
    delays.push((await view.evaluate(() => window.seen)) - Date.parse((await job(id)).lastUpdatedAt));
    await view.context().close();
  }
  delays.sort((a, b) => a - b);
  console.log(`seen after ${delays.join(', ')} ms`);
  assert.ok(delays[delays.length >> 1] <= 500, `${delays} ms`);
});

test('paused page does not change', async () => {
  const page = await open(browser, '/dashboard/jobs');
  await isLive(page);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.locator('html[data-state=paused]').waitFor({ state: 'attached' });
  await page.evaluate(() => {
    window.mutations = 0;
    new MutationObserver((list) => (window.mutations += list.length)).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await page.waitForTimeout(2500); // longer than the clock and the pause between two events
  assert.equal(await page.evaluate(() => window.mutations), 0);
  await page.getByRole('button', { name: 'Pause' }).click();
  await isLive(page);
  await page.getByRole('button', { name: /new$/ }).click();
  await page.locator(`#job-${id}`).waitFor();
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

test('page without a stream polls', async () => {
  const page = await open(browser, '/dashboard/nothing');
  await page.route('**/dashboard/live?*', (route) => route.fulfill({ status: 503 }));
  await page.goto(`${demo}/dashboard/jobs`);
  await page.locator('html[data-state=polling]').waitFor({ state: 'attached' });
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  await page.getByRole('button', { name: /new$/ }).click();
  await page.locator(`#job-${id}`).waitFor();
  await page.context().close();
});

test('lost connection is shown and heals', async () => {
  const proxy = await cuttable();
  const page = await open(browser, '/dashboard/jobs', { address: proxy.address });
  await isLive(page);
  const rows = await page.locator('tbody tr').count();
  proxy.cut();
  await page.getByText(/connection is lost|server does not answer/).waitFor({ timeout: 5000 });
  assert.equal(await page.locator('tbody tr').count(), rows, 'the last data stays');
  proxy.heal();
  await page.locator('#banner').waitFor({ state: 'hidden', timeout: 15000 });
  await isLive(page);
  await page.context().close();
  proxy.close();
});

test('everything works without scripts', async () => {
  const page = await open(browser, '/dashboard/jobs', { javaScriptEnabled: false });
  await page.getByLabel('State').selectOption('Failed');
  await page.getByRole('button', { name: 'Filter' }).click();
  assert.match(page.url(), /status=Failed/);
  await page.locator('tbody th a').first().click();
  await page.getByRole('heading', { name: 'Timeline' }).waitFor();
  await page.getByText('Retry…').click();
  await page.getByRole('button', { name: 'Retry the job' }).click();
  await page.getByText('This is the new job.').waitFor();
  const id = await running();
  await page.goto(`${demo}/dashboard/jobs?q=${id}`);
  await page.getByText('Cancel…').click();
  await page.getByRole('button', { name: 'Cancel the job' }).click();
  await page.getByText('asked to cancel').waitFor();
  await page.getByRole('button', { name: 'dark' }).click();
  assert.equal(await page.locator('html').getAttribute('data-theme'), 'dark');
  await page.context().close();
});

test('keyboard alone filters, opens and cancels', async () => {
  const id = await running();
  const page = await open(browser, '/dashboard');
  await isLive(page);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  const tabTo = async (name) => {
    for (let presses = 0; presses < 60; presses++) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate(() => {
        const style = getComputedStyle(document.activeElement);
        return { text: document.activeElement.textContent, name: document.activeElement.name, outline: style.outlineStyle, width: style.outlineWidth };
      });
      assert.ok(focused.outline !== 'none' && focused.width !== '0px', `${focused.text} has no visible focus`);
      if (focused.text === name || focused.name === name) return;
    }
    assert.fail(`${name} cannot be reached`);
  };
  await tabTo('Jobs');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/jobs');
  await tabTo('q');
  await page.keyboard.type(id);
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/${id}`);
  await tabTo('Cancel…');
  await page.keyboard.press('Enter');
  await tabTo('Cancel the job');
  await page.keyboard.press('Enter');
  await page.getByText('asked to cancel').waitFor();
  await page.context().close();
});
