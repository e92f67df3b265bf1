// The login of a demo that needs a token.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessibility, isLive, launch, open } from './support.mjs';

const address = process.env.LOGIN_URL;
let browser;

before(async () => {
  browser = await launch();
});

after(() => browser?.close());

test('token opens the page that was asked for', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const page = await open(browser, '/dashboard/jobs?status=Failed', { address, colorScheme });
    assert.deepEqual(await accessibility(page), []);
    await page.getByLabel('Token').fill('wrong');
    await page.keyboard.press('Enter');
    await page.getByText('The token is wrong.').waitFor();
    assert.deepEqual(await accessibility(page), []);
    await page.getByLabel('Token').fill('secret');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL('**/dashboard/jobs?status=Failed');
    await isLive(page);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.waitForURL('**/dashboard');
    await page.getByLabel('Token').waitFor();
    await page.context().close();
  }
});
