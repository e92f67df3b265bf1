// Accessibility, security policy and size of each page, and use by keyboard and without scripts.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { LOOK, accessibility, demo, ended, isLive, launch, open, running, submit, tabTo } from './support.mjs';

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

/** What is wider than its box, or cut off by it. Wide tables scroll by themselves. */
const spills = (page) => page.evaluate(() => {
  const all = [...document.querySelectorAll('body, main, main *, header, header *, footer, footer *')];
  const isScrolled = (element) => /auto|scroll/.test(getComputedStyle(element).overflowX);
  const spilling = all.filter((element) => !element.closest('svg, .unseen, details:not([open]) > :not(summary)') && !isScrolled(element) && element.clientWidth > 0);
  return spilling.filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth + 1).map(({ outerHTML }) => outerHTML.slice(0, 90));
});

test('pages are accessible in both themes', async () => {
  for (const [name, path] of Object.entries(pages)) {
    const page = await open(browser, path, { colorScheme: 'light', viewport: { width: 320, height: 900 } });
    if (name !== 'not-found') await isLive(page);
    const show = async (colorScheme, width) => {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-${colorScheme}-${width}.png` });
      assert.deepEqual(await spills(page), [], `${name} at ${width} px: wider than its box`);
    };
    await show('light', 320);
    assert.deepEqual(await accessibility(page), [], `${name}: axe`);
    // A theme changes colors alone, and a width the layout alone.
    await show('dark', 1280);
    assert.deepEqual(await accessibility(page, LOOK), [], `${name} in the dark theme`);
    if (process.env.SCREENSHOTS) await show('light', 1200).then(() => show('dark', 320));
    await page.locator('details').evaluateAll((all) => all.forEach((details) => (details.open = true)));
    await show('light', 320);
    await page.evaluate(() => (document.documentElement.style.fontSize = '200%'));
    await show('light', 1280);
    const problems = page.problems.filter((problem) => !(name === 'not-found' && problem.includes('404')));
    assert.deepEqual(problems, [], `${name}: policy and scripts`);
    await page.context().close();
  }
});

test('pages follow forced colors and reduced motion', async () => {
  for (const path of [pages.overview, pages['job-failed']]) {
    const page = await open(browser, path, { forcedColors: 'active', reducedMotion: 'reduce' });
    await isLive(page);
    assert.deepEqual(await accessibility(page, LOOK), [], `${path}: contrast`);
    // Browsers replace the colors of everything that does not ask for its own.
    const drawn = await page.locator('.dot, .legend li, .plot .line, .timeline rect').evaluateAll((shapes) => shapes.map((shape) => {
      const style = getComputedStyle(shape, shape.matches('li') ? '::before' : null);
      return style[{ path: 'stroke', rect: 'fill' }[shape.localName] ?? 'backgroundColor'];
    }));
    assert.ok(drawn.length > 1 && !drawn.some((color) => ['none', 'rgba(0, 0, 0, 0)', 'rgb(255, 255, 255)'].includes(color)), `${path}: ${drawn}`);
    const moving = await page.locator('*').evaluateAll((all) =>
      all.map((element) => getComputedStyle(element)).filter((style) => style.transitionDuration !== '0s' || style.animationName !== 'none').length);
    assert.equal(moving, 0, `${path}: elements with a transition`);
    if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/forced-${path.length}.png` });
    await page.context().close();
  }
});

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
  await page.goto(`${demo}/dashboard`);
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
  await page.getByRole('link', { name: 'Failed, accepted in the last hour' }).click();
  assert.match(page.url(), /status=Failed&since=1h/);
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
  await tabTo(page, 'Jobs');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/jobs');
  await tabTo(page, 'q');
  await page.keyboard.type(id);
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/${id}`);
  await tabTo(page, 'Cancel…');
  await page.keyboard.press('Enter');
  await tabTo(page, 'Cancel the job');
  await page.keyboard.press('Enter');
  await page.getByText('asked to cancel').waitFor();
  await page.context().close();
});
