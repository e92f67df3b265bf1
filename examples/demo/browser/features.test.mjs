// What an operator does with a page in the browser: views, files, charts, shortcuts, times.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { accessibility, demo, ended, isLive, launch, open, submit } from './support.mjs';

const service = process.env.SERVICE_URL;
let browser;

before(async () => {
  browser = await launch();
  await ended((await submit('unreliable', { failureRate: 1, seed: 29 })).id);
});

after(() => browser?.close());

test('views and files keep the filter', async () => {
  const page = await open(browser, '/dashboard/jobs?status=Failed&name=Unreliable');
  await page.getByText('Save view…').click();
  await page.waitForFunction(() => document.activeElement?.name === 'view');
  await page.keyboard.type('Mine & yours');
  await page.keyboard.press('Enter');
  await page.locator('.saved').waitFor();
  await page.goto(`${demo}/dashboard/jobs`);
  assert.equal(await page.locator('.saved a[aria-current]').count(), 0);
  await page.getByRole('link', { name: 'Mine & yours' }).click();
  await page.waitForURL('**/dashboard/jobs?status=Failed&name=Unreliable');
  assert.equal(await page.locator('.saved a[aria-current]').count(), 1);
  assert.deepEqual(await accessibility(page), []);
  const download = page.waitForEvent('download');
  await page.getByRole('link', { name: /^CSV/ }).click();
  const csv = readFileSync(await (await download).path(), 'utf8').trim().split('\r\n');
  assert.equal((await download).suggestedFilename(), 'jobs.csv');
  assert.ok(csv.length > 1 && csv.slice(1).every((row) => row.includes(',Unreliable,Failed,')), csv.join('\n'));
  await page.getByRole('button', { name: 'Remove the view Mine & yours' }).click();
  await page.reload();
  await isLive(page);
  assert.equal(await page.locator('.saved').count(), 0);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('chart shows its values to pointer and keyboard', async () => {
  const page = await open(browser, '/dashboard', { reducedMotion: 'reduce' });
  await isLive(page);
  const plot = page.getByRole('slider').first();
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + box.width - 1, box.y + box.height / 2);
  const text = page.locator('.cross');
  // Read at once: other tests submit jobs too.
  const shown = await text.evaluate((cross) => ({ text: cross.innerText, last: document.querySelector('.legend b').textContent }));
  assert.match(shown.text, new RegExp(`^\\d\\d:\\d\\d:00\naccepted ${shown.last}\nended `));
  await page.mouse.move(box.x, box.y + box.height / 2);
  assert.match(await text.innerText(), /accepted 0/);
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/cross.png` });
  await page.mouse.move(5, 5);
  assert.equal(await text.isVisible(), false);

  // The keyboard comes from the link in front of the charts.
  await page.getByRole('link', { name: '6h' }).focus();
  await page.keyboard.press('Tab');
  assert.ok(await text.isVisible(), 'a chart with the focus shows its last minute');
  await page.keyboard.press('Home');
  assert.equal(await plot.getAttribute('aria-valuenow'), '0');
  await page.keyboard.press('ArrowRight');
  assert.equal(await plot.getAttribute('aria-valuenow'), '1');
  assert.match(await plot.getAttribute('aria-valuetext'), /^\d\d:\d\d:00: accepted 0, ended 0$/);
  assert.deepEqual(await accessibility(page), []);
  // A change of the charts leaves the line where it is.
  await submit('process-data', { category: 'rain' });
  const legend = page.locator('.legend').first();
  await page.waitForFunction(([legend, before]) => legend.textContent !== before, [await legend.elementHandle(), await legend.textContent()]);
  assert.equal(await plot.getAttribute('aria-valuenow'), '1');
  assert.ok(await text.isVisible());
  await page.keyboard.press('Escape');
  assert.equal(await text.isVisible(), false);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('shortcuts are listed and can be switched off', async () => {
  const page = await open(browser, '/dashboard/operations');
  await isLive(page);
  await page.keyboard.press('?');
  const help = page.getByRole('dialog', { name: 'Keyboard shortcuts' });
  await help.waitFor();
  assert.deepEqual(await accessibility(page), []);
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/shortcuts.png` });
  await page.keyboard.press('Escape');
  await help.waitFor({ state: 'hidden' });
  await page.keyboard.press('/');
  await page.waitForURL(/dashboard.jobs/);
  const box = page.getByRole('textbox', { name: 'Id or text' });
  await page.waitForFunction(() => document.activeElement.name === 'q');
  await page.keyboard.type('p?3');
  assert.equal(await box.inputValue(), 'p?3');
  await box.blur();
  await page.keyboard.press('p');
  await page.locator('html[data-state=paused]').waitFor({ state: 'attached' });
  await page.keyboard.press('p');
  await isLive(page);
  await page.keyboard.press('3');
  await page.waitForURL('**/dashboard/types');
  await page.getByRole('button', { name: 'Keyboard shortcuts' }).click();
  await page.getByLabel('Use shortcuts in this browser').uncheck();
  await page.getByRole('button', { name: 'Close' }).click();
  await page.reload();
  await isLive(page);
  await page.keyboard.press('2');
  await page.keyboard.press('?');
  assert.equal(await page.getByRole('dialog').count(), 0);
  assert.match(page.url(), /types$/);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('figures stay on one line', async () => {
  const page = await open(browser, '/dashboard');
  await isLive(page);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.locator('.counts b').evaluateAll((figures) => figures.forEach((figure) => (figure.textContent = '59 min 59 s')));
  for (const width of [1200, 1280, 1440, 640]) {
    await page.setViewportSize({ width, height: 900 });
    const cards = await page.locator('.counts li > *').evaluateAll((cards) =>
      cards.map(({ clientHeight, clientWidth, scrollWidth }) => ({ height: clientHeight, spill: scrollWidth - clientWidth })));
    assert.ok(cards.every(({ height, spill }) => height === cards[0].height && height < 70 && spill <= 0), `${width} px: ${JSON.stringify(cards)}`);
  }
  await page.context().close();
});

test('times of a pause are dates in the chosen zone', async () => {
  const until = '2027-01-02T23:30:00Z';
  const pause = await fetch(`${service}/ops/types/Wait/pause`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ reason: 'm'.repeat(190), until }),
  });
  assert.equal(pause.status, 200);
  const page = await open(browser, '/dashboard/types', { address: service, timezoneId: 'Asia/Tokyo' });
  await isLive(page);
  const times = page.locator('#type-Wait .paused time');
  assert.match(await times.first().innerText(), /^\d\d:\d\d:\d\d$/);
  assert.equal(await times.last().innerText(), '2027-01-03 08:30:00');
  await page.getByRole('button', { name: 'UTC' }).click();
  await isLive(page);
  assert.equal(await times.last().innerText(), '2027-01-02 23:30:00');
  const spilling = () => page.locator('html, .scroll').evaluateAll((all) =>
    all.filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth).map(({ outerHTML }) => outerHTML.slice(0, 90)));
  assert.deepEqual(await spilling(), [], 'the date wraps');
  await page.locator('#type-Wait th a').click();
  assert.equal(await page.locator('#state time').last().innerText(), '2027-01-02 23:30:00');
  assert.deepEqual(await spilling(), [], 'the long reason wraps');
  await page.context().close();
});

test('form shows and takes times in the zone of the page', async () => {
  const page = await open(browser, '/dashboard/failures', { timezoneId: 'Pacific/Kiritimati', locale: 'fi-FI' });
  const since = page.getByLabel('Since');
  for (const [zone, sent] of [['UTC', '2026-11-29T12:00:00.000Z'], ['local', '2026-11-28T22:00:00.000Z']]) {
    await page.getByRole('button', { name: zone }).click();
    await page.locator(`html[data-zone=${zone.toLowerCase()}][data-state=live]`).waitFor({ state: 'attached' });
    await since.fill('2026-11-29T12:00');
    await page.getByRole('button', { name: 'Show' }).click();
    await page.waitForURL((url) => url.searchParams.get('since') === sent);
    assert.equal(await since.inputValue(), '2026-11-29T12:00', zone);
    await page.getByRole('heading', { name: /since 2026-11-29 12[.]00[.]00$/ }).waitFor();
  }
  await page.context().close();
});

test('times are right whatever clock and zone the browser has', async () => {
  const { id } = await submit('process-data', { category: 'rain' });
  await ended(id);
  for (const [hours, timezoneId] of [[10, 'Pacific/Kiritimati'], [-10, 'Pacific/Pago_Pago'], [0, 'Europe/Berlin']]) {
    const context = await browser.newContext({ timezoneId });
    await context.addInitScript((ahead) => {
      const Right = Date;
      globalThis.Date = class extends Right {
        constructor(...values) {
          super(...(values.length ? values : [Right.now() + ahead]));
        }
        static now() {
          return Right.now() + ahead;
        }
      };
    }, hours * 3600_000);
    const page = await context.newPage();
    await page.goto(`${demo}/dashboard/jobs`);
    await isLive(page);
    const accepted = page.locator(`#job-${id} time[data-as=ago]`);
    assert.match(await accepted.innerText(), /^(now|\d+ s ago)$/, timezoneId);
    assert.match(await accepted.getAttribute('datetime'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    const clock = new Intl.DateTimeFormat('sv', { timeZone: timezoneId, dateStyle: 'short', timeStyle: 'medium' });
    const at = new Date(await accepted.getAttribute('datetime'));
    assert.ok((await accepted.getAttribute('title')).startsWith(clock.format(at)), timezoneId);
    if (timezoneId === 'Europe/Berlin') {
      // Half past two happens twice, and the title says which one it is.
      await page.evaluate(() => {
        for (const hour of ['00', '01']) {
          const time = document.createElement('time');
          Object.assign(time, { dateTime: `2026-10-25T${hour}:30:00.000000Z`, className: 'night' });
          time.dataset.as = 'time';
          document.body.append(time);
        }
      });
      await page.locator('.night[title]').nth(1).waitFor();
      const titles = await page.locator('.night').evaluateAll((times) => times.map(({ title }) => title));
      assert.deepEqual(titles, ['2026-10-25 02:30:00 UTC+02:00', '2026-10-25 02:30:00 UTC+01:00']);
    }
    await context.close();
  }
});
