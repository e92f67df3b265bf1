// Accessibility, security policy and size of each page, and use by keyboard and without scripts.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessibility, demo, ended, isLive, launch, open, running, submit } from './support.mjs';

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
    types: '/dashboard/types',
    type: '/dashboard/types/Sleep',
    workers: '/dashboard/workers',
    failures: '/dashboard/failures',
    health: '/dashboard/health',
    operations: '/dashboard/operations',
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
