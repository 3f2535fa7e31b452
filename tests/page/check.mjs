// The page's tests, in a real browser. See README.md.

import { createRequire } from 'node:module';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import assert from 'node:assert/strict';
import { SCENES, SCRIPT_KEY, LONG_KEY } from './scenes.mjs';
import { serve } from './stub.mjs';
import { STATES, start } from './real.mjs';
import { contrasts, focusables, overflowing, unnamed } from './look.mjs';

const { chromium } = createRequire(join(process.env.TOLLGATE_PAGE_PACKAGES, 'package.json'))('playwright-core');
const { values: options } = parseArgs({ options: { url: { type: 'string' }, tollgate: { type: 'string' }, screenshots: { type: 'string' }, readme: { type: 'boolean', default: false }, only: { type: 'string', default: '' } } });

const WIDTHS = { 360: 780, 768: 1024, 1440: 900 };
const MOST_BYTES = 100_000;
const MOST_PAINT_MS = 100;
const MOST_LOADS = 60;

const browser = await chromium.launch({ executablePath: process.env.TOLLGATE_TEST_CHROMIUM, args: ['--no-sandbox'] });
const stub = options.url ? null : await serve('up');
let url = options.url ?? stub.url;
let passed = 0;
let failed = 0;

/** A window of its own that has shown nothing yet, and what its browser reports. */
async function open({ theme = 'light', width = 1440, ...context }) {
  const own = await browser.newContext({ colorScheme: theme, viewport: { width, height: WIDTHS[width] }, ...context });
  const page = await own.newPage();
  const reports = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && reports.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => reports.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => { reports.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => !request.url().startsWith(url) && !request.url().startsWith('data:') && reports.push(`request: ${request.url()}`));
  await page.addInitScript(() => addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  return { page, reports, close: () => own.close() };
}

/** Loads the page, hands it to `test`, and expects that nothing is reported meanwhile but what is expected. */
async function check(title, { scene, path = '', expected = [], shared, ...context }, test) {
  if (!title.includes(options.only)) return;
  if (scene) Object.assign(stub, { scene, status: 200 });
  const { page, reports, close } = shared ?? (await open(context));
  reports.length = 0;
  try {
    await page.goto(url + path);
    await page.waitForFunction(() => !document.body.classList.contains('waiting'));
    await test(page);
    assert.deepEqual(reports.filter((report) => !expected.some((pattern) => pattern.test(report))), [], 'the browser reported');
    passed += 1;
  } catch (error) {
    failed += 1;
    console.log(`not ok: ${title}\n  ${String(error.message).replaceAll('\n', '\n  ')}`);
  } finally {
    if (!shared) await close();
  }
}

/** What is visible, with every blank as a space. */
const seen = async (page, selector = 'body') => (await page.locator(selector).innerText()).replace(/\s+/g, ' ');
const until = (page, condition, argument) => page.waitForFunction(condition, argument, { timeout: 5000 });

/** What holds in any state. */
async function holdsAlways(page) {
  assert.deepEqual(await page.evaluate(overflowing), [], 'wider than the window');
  assert.deepEqual(await page.evaluate(contrasts), [], 'contrast');
  assert.deepEqual(await page.evaluate(unnamed), [], 'without a name');
  assert.equal(await page.locator('script').count(), 2);
  assert.equal(await page.locator('img, b, i, iframe, [style], [onclick]').count(), 0, 'markup of others, or style attributes');
}

/** Each of the scenes in each look: `test(page, scene, file)`. The browser may report what is `expected`. */
async function looks(scenes, expected, test) {
  for (const theme of ['light', 'dark']) {
    for (const width of Object.keys(WIDTHS).map(Number)) {
      const shared = await open({ theme, width });
      for (const scene of scenes) {
        await check(`${scene}, ${theme}, ${width} px`, { shared, expected, scene: stub && scene in SCENES && scene }, (page) => test(page, scene, `${scene}-${theme}-${width}.png`));
      }
      await shared.close();
    }
  }
}

async function screenshots(folder) {
  mkdirSync(folder, { recursive: true });
  await looks(stub ? Object.keys(SCENES) : ['real'], [], async (page, scene, file) => {
    await page.screenshot({ path: join(folder, `first-${file}`) });
    if (scene === 'up' || scene === 'hostile') {
      await page.fill('#key', scene === 'up' ? 'user:42' : LONG_KEY);
      await page.press('#key', 'Enter');
      await page.locator('.limits, #lookup-result p').first().waitFor();
    }
    await page.screenshot({ path: join(folder, file), fullPage: true });
  });
}

/** The pictures that README shows. */
async function pictures() {
  for (const theme of ['light', 'dark']) {
    await check(`picture, ${theme}`, { theme, scene: 'no-policies' }, (page) => page.screenshot({ path: new URL(`../../docs/page-${theme}.png`, import.meta.url).pathname }));
  }
}

/** With a stub: every state that there is. */
async function states() {
  await looks(Object.keys(SCENES), [], async (page, scene) => {
    const { says, shows, hides = [] } = SCENES[scene];
    assert.match(await seen(page, '#sentence'), says);
    const text = await seen(page);
    for (const part of shows) assert.ok(text.includes(part.replace(/\s+/g, ' ')), `'${part}' is not shown`);
    for (const part of hides) assert.ok(!text.includes(part), `'${part}' is shown`);
    await holdsAlways(page);
  });
}

/** With a real Tollgate: what it says of itself, in states that it was brought into. */
async function realStates() {
  for (const isEmbedded of [false, true]) {
    const real = await start(options.tollgate, isEmbedded);
    url = real.url;
    try {
      for (const [name, { bring, says, shows, finds = {}, expected }] of Object.entries(STATES).filter(([, state]) => Boolean(state.isEmbedded) === isEmbedded)) {
        await bring?.(real);
        await looks([`real ${name}`], expected, async (page) => {
          // The page may have been loaded in the second before.
          await page.waitForFunction((says) => new RegExp(says, 'u').test(document.getElementById('sentence').innerText.replace(/\s+/g, ' ')), says.source, { timeout: 5000 });
          const text = await seen(page);
          for (const part of shows) assert.ok(text.includes(part), `'${part}' is not shown in: ${text}`);
          for (const [key, part] of Object.entries(finds)) {
            await page.fill('#key', key);
            await page.keyboard.press('Enter');
            await page.waitForFunction((part) => document.getElementById('lookup-result').innerText.replace(/\s+/g, ' ').includes(part), part, { timeout: 5000 });
          }
          await holdsAlways(page);
        });
      }
    } finally {
      await real.stop();
      url = stub.url;
    }
  }
}

async function loading() {
  await check('bytes and first paint', { scene: stub && 'up' }, async (page) => {
    // Other work on the machine only ever adds to the time, so one load that is fast enough shows that the page is.
    const paints = [];
    while (paints.length < MOST_LOADS && !(Math.min(...paints) < MOST_PAINT_MS)) {
      await page.goto(url);
      await until(page, () => performance.getEntriesByName('first-contentful-paint').length > 0);
      paints.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime));
    }
    assert.ok(Math.min(...paints) < MOST_PAINT_MS, `first paints after ${paints.map(Math.round)} ms`);
    await until(page, () => document.querySelector('#rates-chart svg, #first:not([hidden])'));
    const bytes = await page.evaluate(() => {
      const files = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')].filter(({ name }) => !name.includes('/api/'));
      return files.length === 12 ? files.reduce((all, { decodedBodySize }) => all + decodedBodySize, 0) : `not 12 but ${files.length} files`;
    });
    assert.ok(bytes < MOST_BYTES, `${bytes} bytes`);
    console.log(`# ${bytes} bytes; first paint after ${Math.round(Math.min(...paints))} ms, the best of ${paints.length} loads`);
  });
}

async function controls() {
  for (const width of [360, 1440]) {
    await check(`keyboard, ${width} px`, { width, scene: stub && 'many-keys' }, async (page) => {
      const wanted = await page.evaluate(focusables);
      const reached = [];
      for (let press = 0; press < wanted.length + 5; press += 1) {
        await page.keyboard.press('Tab');
        const focus = await page.evaluate(() => {
          const element = document.activeElement;
          const ring = getComputedStyle(element.matches('input[type=radio]') ? element.nextElementSibling : element);
          return { mark: element.mark, isRinged: ring.outlineStyle !== 'none' && parseFloat(ring.outlineWidth) >= 2 };
        });
        if (focus.mark === undefined) break;
        assert.ok(focus.isRinged, `no visible focus on ${focus.mark}`);
        reached.push(focus.mark);
      }
      assert.deepEqual(reached, wanted);
    });
  }
  await check('the skip link leads to the state', { scene: stub && 'up' }, async (page) => {
    await page.keyboard.press('Tab');
    assert.ok(await page.locator('.skip').evaluate((link) => link.getBoundingClientRect().top >= 0));
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  });
  await check('the theme is remembered', { scene: stub && 'up' }, async (page) => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.getByText('Dark', { exact: true }).click();
    const dark = await ground();
    assert.notEqual(dark, light);
    await page.reload();
    assert.equal(await ground(), dark);
    assert.ok(await page.getByLabel('Dark').isChecked());
    await page.getByText('Auto', { exact: true }).click();
    assert.equal(await ground(), light);
  });
  await check('no motion where that is asked for', { scene: stub && 'up', reducedMotion: 'reduce' }, async (page) => {
    const moving = await page.evaluate(() => [...document.querySelectorAll('*')].filter((element) => getComputedStyle(element).transitionDuration !== '0s' || getComputedStyle(element).animationName !== 'none').length);
    assert.equal(moving, 0);
  });
  await check('landmarks', { scene: stub && 'up' }, async (page) => {
    for (const role of ['banner', 'main', 'contentinfo', 'search']) assert.equal(await page.getByRole(role).count(), 1, role);
    for (const name of ['State', 'Answers', 'Latency', 'Denied most', 'Look up a key', 'Policies', 'Tollgate itself']) assert.equal(await page.getByRole('region', { name }).count(), 1, name);
    assert.match(await page.getByRole('img', { name: /^Answers a second/ }).getAttribute('aria-label'), /Now allowed [0-9.,]+, denied [0-9.,]+, degraded [0-9.,]+; at most [0-9,]+ in all\.$/);
  });
}

async function keys() {
  await check('a key is text', { scene: 'hostile' }, async (page) => {
    await page.getByRole('button', { name: SCRIPT_KEY }).first().click();
    await until(page, () => document.querySelector('.limits'));
    assert.equal(await seen(page, '#lookup-result h3 .name'), SCRIPT_KEY);
    assert.equal(await page.inputValue('#key'), SCRIPT_KEY);
    const long = page.locator('#top-denied .key-button', { hasText: '…' }).first();
    assert.equal(await long.getAttribute('title'), LONG_KEY);
    assert.match(await long.innerText(), /^(\\x00|\\xff)+…(\\x00|\\xff)+$/, 'cut between bytes');
    await holdsAlways(page);
  });
  await check('a key is looked up', { scene: 'up' }, async (page) => {
    await page.fill('#key', 'user:42');
    await page.keyboard.press('Enter');
    await until(page, () => document.querySelectorAll('.limit').length === 4);
    const text = await seen(page, '#lookup-result');
    for (const part of ['100 in 1 s policy api, log', '37 of 100 used 63 left', 'More is free in 32 ms, all in 800 ms.', '5,000 of 5,000 used denies now', '37 entries', 'In 1 min in the call, log', '12 used of what the call allows', 'Override 1000 1s', 'All of it is free.']) {
      assert.ok(text.includes(part), `'${part}' is not in '${text}'`);
    }
    assert.match(page.url(), /#key=user%3A42$/);
    await holdsAlways(page);
  });
  await check('a link leads to a key', { scene: 'up', path: '#key=user%3A42' }, async (page) => {
    await until(page, () => document.querySelectorAll('.limit').length === 4);
    assert.equal(await page.inputValue('#key'), 'user:42');
  });
  await check('a key without state', { scene: 'up', path: '#key=nobody', expected: [/404/] }, async (page) => {
    await until(page, () => document.querySelector('#lookup-result').innerText.includes('It has no state'));
  });
  await check('a key while Redis is down', { scene: 'degraded', path: '#key=user', expected: [/503/] }, async (page) => {
    await until(page, () => document.querySelector('#lookup-result').innerText.includes('when it is back'));
  });
  await check('keys by policy, and more of them', { scene: 'many-keys' }, async (page) => {
    const rows = page.locator('#top-denied .keys tbody tr');
    assert.equal(await rows.count(), 8);
    await page.locator('#top-denied .more').click();
    await until(page, () => document.querySelectorAll('#top-denied .keys tbody tr').length === 100);
    await page.locator('#top-denied select').selectOption('login');
    assert.deepEqual([...new Set(await page.locator('#top-denied .policy').allInnerTexts())], ['login']);
  });
  await check('the key that has focus stays what it is', { scene: 'up' }, async (page) => {
    const first = page.locator('#top-denied .key-button').first();
    await first.focus();
    const { asked } = stub;
    stub.scene = 'many-keys';
    while (stub.asked < asked + 3) await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(await first.innerText(), 'user:42');
    await page.locator('#key').focus();
    await until(page, () => document.querySelector('#top-denied .key-button').innerText === 'user:0');
  });
}

async function changes() {
  await check('what is spoken is spoken once', { scene: 'up' }, async (page) => {
    await page.evaluate(() => {
      window.spoken = [];
      new MutationObserver(() => window.spoken.push(document.getElementById('spoken').textContent)).observe(document.getElementById('spoken'), { childList: true, characterData: true, subtree: true });
    });
    for (const [scene, word] of [['degraded', 'Degraded'], ['recovered', 'Exact']]) {
      const { asked } = stub;
      stub.scene = scene;
      while (stub.asked < asked + 4) await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(await page.title(), `${word} · Tollgate`);
    }
    assert.deepEqual(await page.evaluate(() => window.spoken), ['Redis is down: answers are degraded. Redis refuses connections. Start Redis, or have redis.addr lead to one that runs.', 'All exact.']);
  });
  for (const theme of ['light', 'dark']) {
    await check(`Tollgate is gone and comes back, ${theme}`, { theme, scene: 'up', expected: [/ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/] }, async (page) => {
      await stub.close();
      try {
        await until(page, () => document.body.classList.contains('lost'));
        assert.match(await seen(page, '#sentence'), /^Tollgate has not answered this page since [0-9:]{8}\.$/);
        assert.match(await seen(page, '#why'), /^Reason It cannot be reached\. .* What is below is of [0-9:]{8}\. This page keeps trying, every 1 s\.$/);
        await holdsAlways(page);
        await until(page, () => document.getElementById('why').innerText.includes('every 2\u202fs'));
        if (options.screenshots) await page.screenshot({ path: join(options.screenshots, `lost-${theme}-1440.png`) });
      } finally {
        await stub.open();
      }
      await until(page, () => !document.body.classList.contains('lost'));
      assert.match(await seen(page, '#sentence'), SCENES.up.says);
    });
  }
  await check('Tollgate answers with an error', { scene: 'up', expected: [/500/] }, async (page) => {
    stub.status = 500;
    await until(page, () => document.getElementById('why').innerText.includes('It answered with status 500.'));
  });
  await check('a page that is hidden does not ask', { scene: 'up' }, async (page) => {
    const hide = (isHidden) => page.evaluate((isHidden) => {
      Object.defineProperty(document, 'hidden', { configurable: true, value: isHidden });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isHidden);
    await hide(true);
    await page.waitForTimeout(300);
    const { asked } = stub;
    await page.waitForTimeout(2500);
    assert.equal(stub.asked, asked);
    await hide(false);
    await page.waitForTimeout(2500);
    assert.ok(stub.asked >= asked + 2 && stub.asked <= asked + 4, `asked ${stub.asked - asked} times in 2.5 s`);
  });
}

try {
  if (options.readme) await pictures();
  else if (options.screenshots) await screenshots(options.screenshots);
  else if (stub) await states();
  else await looks(['real'], [], holdsAlways);
  if (!options.screenshots && !options.readme) {
    await loading();
    await controls();
    if (stub) await keys();
  }
  if (stub && !options.readme) await changes();
  if (stub && options.tollgate && !options.screenshots && !options.readme) await realStates();
} finally {
  await browser.close();
  await stub?.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
