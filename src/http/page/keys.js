// Keys: those of most answers, and one that is looked up.

import { clockTime, count, cut, duration, sentence, visible } from './text.js';
import { bar, byId, cell, fill, h, muted, pairs, row, s, share, small, span, table, titled } from './elements.js';
import { request, tollgateNow } from './ask.js';

const KEYS_SHOWN = 8;
const MOST_KEYS_SHOWN = 100;

// No name of a policy has a blank or a parenthesis.
const POLICY_OF_CALL = '(in the call)';
const chosenOf = { denied: { all: false, policy: null, entries: [] }, allowed: { all: false, policy: null, entries: [] } };

/** Shows both lists. */
export function showTops(top) {
  for (const [kind, chosen] of Object.entries(chosenOf)) {
    chosen.entries = top[kind];
    showTop(kind);
  }
}

/** `isAsked`: by whoever uses the page, not by the passing of time. */
function showTop(kind, isAsked) {
  const top = chosenOf[kind];
  const { entries } = top;
  const section = byId(`top-${kind}`);
  const box = section.querySelector('.keys');
  // Who points at a row, or has come to it with the keyboard, must find the same key there when they press.
  const isHeld = box.contains(document.activeElement) || (matchMedia('(hover: hover)').matches && box.matches(':hover'));
  if (isHeld && !isAsked) return;
  const policies = [...new Set(entries.map(({ policy }) => policy ?? POLICY_OF_CALL))].sort();
  if (top.policy !== null && !policies.includes(top.policy)) top.policy = null;
  const select = section.querySelector('select');
  select.hidden = policies.length < 2;
  fill(select, h('option', { value: '' }, 'All policies'), policies.map((policy) => h('option', { value: policy }, policy === POLICY_OF_CALL ? 'Limits in the call' : cut(visible(policy)))));
  select.value = top.policy ?? '';

  const chosen = entries.filter(({ policy }) => top.policy === null || (policy ?? POLICY_OF_CALL) === top.policy);
  const shown = chosen.slice(0, top.all ? MOST_KEYS_SHOWN : KEYS_SHOWN);
  const most = chosen[0]?.count;
  fill(box, shown.length === 0 ? muted(`No key was ${kind} lately.`) : [
    table(`Keys ${kind} most, lately`, [['Key'], ['Policy'], ['Count', 'number']], shown.map((entry) => keyRow(entry, most, kind))),
    h('p', { class: 'muted note-below' }, 'Of the last minute. By the number after −, pale in the bar, counts may be too high.'),
  ]);
  const more = section.querySelector('.more');
  const available = Math.min(chosen.length, MOST_KEYS_SHOWN);
  more.hidden = available <= KEYS_SHOWN;
  more.setAttribute('aria-expanded', top.all);
  fill(more, top.all ? 'Show fewer' : available === chosen.length ? `Show all ${available}` : `Show ${available} of ${count(chosen.length)}`);
}

function keyRow({ key, policy, count: number, error }, most, kind) {
  const sure = Math.max(0, number - error);
  return row(
    [
      h('button', { type: 'button', class: 'key-button', 'data-key': key, title: visible(key) }, h('bdi', null, cut(visible(key)))),
      bar([share(sure, most), kind], [share(number - sure, most), `${kind} unsure`]),
    ],
    cell('policy', policy === null ? span('muted', 'in the call') : titled(policy, 24)),
    cell('number', h('span', { title: error > 0 && `between ${count(sure)} and ${count(number)}` }, count(number), error > 0 && small(`−${count(error)}`))));
}

let asked = 0;

async function lookUp(key) {
  const mine = ++asked;
  history.replaceState(null, '', `#key=${encodeURIComponent(key)}`);
  fill('lookup-result', muted('Looking …'));
  let shown;
  try {
    const response = await request(`/api/key?key=${encodeURIComponent(key)}`);
    const found = await response.json().catch(() => ({}));
    shown = response.ok ? foundKey(found) : notFound(key, response.status, found.error);
  } catch {
    shown = h('p', null, 'Tollgate does not answer.');
  }
  if (mine === asked) fill('lookup-result', shown);
}

function notFound(key, status, error) {
  const known = { 404: 'It has no state: nothing of it counts now.', 503: 'Redis is down. A key can be looked up when it is back.' }[status];
  return [h('h3', null, titled(key, 80)), h('p', null, known ?? `Tollgate refused: status ${status}.`), !known || status === 503 ? muted(sentence(error)) : null];
}

function foundKey({ key, limits, override, penalty, leases }) {
  const nowMs = tollgateNow();
  const extras = [['Override', override], ['Penalty', penalty], ['Leases', leases?.length ? leases : null]].filter(([, value]) => value !== null && value !== undefined);
  return [
    h('h3', null, h('bdi', { class: 'name' }, visible(key)), ' ', small(`at ${clockTime.format(nowMs)}`)),
    extras.length > 0 && pairs(extras.map(([term, value]) => [term, plain(value)]), 'extras'),
    limits.length === 0 && muted('No limit of it has state.'),
    h('div', { class: 'limits' }, limits.map((limit) => limitCard(limit, nowMs))),
  ];
}

/** Anything that JSON holds, in a line. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join('; ');
  return value instanceof Object ? Object.entries(value).map((pair) => pair.map(plain).join(' ')).join(', ') : visible(value);
}

function limitCard(limit, nowMs) {
  const { policy, algorithm, limit: most, window_ms: windowMs, used, next_ms: nextMs, free_ms: freeMs, entries } = limit;
  const isFull = most !== null && used >= most;
  const title = most === null ? `In ${duration(windowMs)}` : `${count(most)} in ${duration(windowMs)}`;
  const left = most === null ? 'of what the call allows' : isFull ? 'denies now' : `${count(most - used)} left`;
  return h('article', { class: 'limit' },
    h('h4', null, title, small(' ', policy === null ? 'in the call' : ['policy ', titled(policy, 24)], ', ', visible(algorithm))),
    h('p', { class: 'used' }, h('strong', { class: isFull ? 'bad-text' : null }, count(used)), most === null ? ' used' : ` of ${count(most)} used`, span('muted', left)),
    most !== null && bar([share(used, most), isFull ? 'denied' : 'allowed']),
    entries?.length > 0 && strip(limit, nowMs),
    muted(used === 0 ? 'All of it is free.' : nextMs < freeMs ? `More is free in ${duration(nextMs)}, all in ${duration(freeMs)}.` : `All is free in ${duration(freeMs)}.`));
}

const STRIP_BARS = 96;

/** When in the window the entries were made, and how heavy they are. */
function strip({ entries, entry_count: all, oldest_ms: oldestMs, newest_ms: newestMs, window_ms: windowMs }, nowMs) {
  const weights = new Array(STRIP_BARS).fill(0);
  for (const [atMs, cost] of entries) {
    const place = Math.floor((1 - (nowMs - atMs) / windowMs) * STRIP_BARS);
    weights[Math.max(0, Math.min(STRIP_BARS - 1, place))] += cost;
  }
  const heaviest = Math.max(...weights);
  const tall = (weight) => Math.max(2, (24 * weight) / heaviest);
  const total = all === 1 ? '1 entry' : `${count(all)} entries${all > entries.length ? `, the newest ${count(entries.length)} drawn` : ''}`;
  const label = `${total}, the oldest ${duration(nowMs - oldestMs)} ago, the newest ${duration(nowMs - newestMs)} ago`;
  return h('figure', { class: 'strip' },
    s('svg', { role: 'img', 'aria-label': label, viewBox: `0 0 ${STRIP_BARS} 24`, preserveAspectRatio: 'none' },
      weights.map((weight, index) => weight > 0 && s('rect', { class: 'allowed', x: index, width: 0.7, y: 24 - tall(weight), height: tall(weight) }))),
    h('figcaption', null, [`${duration(windowMs)} ago`, total, 'now'].map((text) => span(null, text))));
}

/** Has keys lead to the look-up, and an address of this page to the key in it. */
export function useKeys() {
  for (const [kind, top] of Object.entries(chosenOf)) {
    const section = byId(`top-${kind}`);
    const again = () => showTop(kind, true);
    section.querySelector('select').addEventListener('change', (event) => { top.policy = event.target.value || null; again(); });
    section.querySelector('.more').addEventListener('click', () => { top.all = !top.all; again(); });
    section.querySelector('.keys').addEventListener('click', (event) => {
      const key = event.target.closest('[data-key]')?.dataset.key;
      if (key === undefined) return;
      byId('key').value = key;
      byId('lookup-result').focus({ preventScroll: true });
      byId('lookup').scrollIntoView({ block: 'nearest' });
      lookUp(key);
    });
  }
  byId('lookup-form').addEventListener('submit', (event) => {
    event.preventDefault();
    lookUp(byId('key').value);
  });
  const linked = new URLSearchParams(location.hash.slice(1)).get('key');
  if (linked) {
    byId('key').value = linked;
    lookUp(linked);
  }
}
