// What operators change, in a real browser: without scripts, by the keyboard, and while pages change.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ended, isLive, launch, open, submit, tabTo } from './support.mjs';

let browser;

before(async () => {
  browser = await launch();
});

after(() => browser?.close());

test('actions of operators work without scripts', async () => {
  const { id } = await submit('unreliable', { failureRate: 1, seed: 23 });
  await ended(id);
  const page = await open(browser, '/dashboard/types/TracedProcess', { javaScriptEnabled: false });
  await page.getByText('Pause…').click();
  await page.getByLabel('Reason').fill('The second service is being replaced.');
  await page.getByLabel('For').selectOption('1 hour');
  await page.getByRole('button', { name: 'Pause the type' }).click();
  await page.getByText('The type is paused.').waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByText('The type is resumed.').waitFor();

  await page.getByRole('link', { name: 'Health and alerts' }).click();
  await page.getByText('Silence a rule…').click();
  await page.getByRole('combobox', { name: 'Rule' }).selectOption('memory');
  await page.getByLabel('Reason').fill('The nightly import needs much memory.');
  await page.getByRole('button', { name: 'Silence the rule' }).click();
  await page.getByRole('button', { name: 'End the silence of memory' }).click();
  await page.getByText('The silence has ended.').waitFor();

  await page.getByRole('link', { name: 'Failures' }).click();
  await page.getByRole('button', { name: 'Retry…' }).first().click();
  await page.getByRole('button', { name: 'Retry these jobs' }).click();
  await page.getByText('The operation is started.').waitFor();
  await page.getByRole('cell', { name: 'bulk.start' }).first().waitFor();
  await page.context().close();
});

test('keyboard alone silences a rule', async () => {
  const page = await open(browser, '/dashboard/health');
  await isLive(page);
  await tabTo(page, 'Silence a rule…');
  await page.keyboard.press('Enter');
  await tabTo(page, 'rule');
  await page.keyboard.type('queue_wait');
  await tabTo(page, 'reason');
  await page.keyboard.type('A deployment.');
  await page.keyboard.press('Enter');
  await page.getByText('The rule is silenced.').waitFor();
  await page.waitForURL(/health$/); // a reload does not say it again
  await page.getByRole('button', { name: 'End the silence of queue_wait' }).waitFor();
  await page.context().close();
});

test('form of a page that changes keeps its text', async () => {
  const page = await open(browser, '/dashboard/types/PerformanceProcess');
  await isLive(page);
  await page.getByText('Pause…').click();
  await page.getByLabel('Reason').fill('typed');
  const completed = page.locator('a.completed b');
  const before = await completed.textContent();
  const { id } = await submit('performance', { taskType: 'sort', itemCount: 10, includeIoSimulation: false });
  await ended(id);
  await page.waitForFunction((before) => document.querySelector('a.completed b').textContent !== before, before);
  assert.equal(await page.getByLabel('Reason').inputValue(), 'typed');
  assert.ok(await page.getByRole('button', { name: 'Pause the type' }).isVisible());
  assert.deepEqual(page.problems, []);
  await page.context().close();
});
