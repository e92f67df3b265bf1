// The login of a demo that needs a token.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { LOOK, accessibility, isLive, launch, open } from './support.mjs';

const address = process.env.LOGIN_URL;
const elsewhere = process.env.SERVICE_URL;
let browser;

before(async () => {
  browser = await launch();
});

after(() => browser?.close());

async function signIn(page) {
  await page.getByLabel('Token').fill('secret');
  await page.getByRole('button', { name: 'Sign in' }).click();
}

test('token opens the page that was asked for', async () => {
  const page = await open(browser, '/dashboard/jobs?status=Failed', { address, colorScheme: 'light' });
  assert.deepEqual(await accessibility(page), []);
  await page.getByLabel('Token').fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByText('The token is wrong.').waitFor();
  assert.deepEqual(await accessibility(page), []);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.deepEqual(await accessibility(page, LOOK), []);
  await signIn(page);
  await page.waitForURL('**/dashboard/jobs?status=Failed');
  await isLive(page);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/dashboard');
  await page.getByLabel('Token').waitFor();
  await page.context().close();
});

// Browsers send `Sec-Fetch-Site` to this machine and over TLS, but not over plain HTTP to another host.
for (const [name, host] of [['this machine', '127.0.0.1'], ['another host', 'jobs.test']]) {
  test(`link of another site opens the page on ${name}`, async () => {
    const target = `http://${host}:${new URL(address).port}/dashboard/jobs?status=Failed`;
    const page = await open(browser, '', { address: target });
    const loads = [];
    page.on('request', (request) => request.isNavigationRequest() && request.url() === target && loads.push(request));
    const follow = async () => {
      await page.goto(`http://other.test:${new URL(elsewhere).port}/elsewhere?${target}`);
      loads.length = 0;
      await page.getByRole('link').click();
    };
    await follow();
    await page.getByLabel('Token').waitFor();
    await signIn(page);
    await page.waitForURL(target);
    await isLive(page);
    await follow();
    await isLive(page);
    await page.getByRole('heading', { name: 'Jobs' }).waitFor();
    assert.equal(loads.length, 2, 'the page loads itself once');
    await page.context().close();
  });
}
