// Tollgate's page: asks for the state once a second and shows it. It changes nothing.
//
// GET /api/state, of which this is used. Counts are totals since the start unless said otherwise; times are milliseconds
// of the Unix epoch by Tollgate's clock; what others sent is printable text, as redis-cli shows bytes.
//
//   version, build, now_ms, uptime_s, forwarded, failed_logins
//   mode          redis, sentinel, cluster, or embedded (then nodes is empty)
//   state         exact, since_ms; while not exact also cause and advice
//   clients       connected (now), max, rejected
//   answers       each in one of: allowed, denied (by the store), denied_cached, degraded_allowed, degraded_denied, refused
//   latency       check, store: p50_us and p99_us of the last ten seconds, or null
//   nodes[]       addr, role, slots or null, up, since_ms (up or down), breaker (closed, open, half-open), round_trip_us,
//                 problem, advice (while up: a warning) or null; changes[]: at_ms, up, cause
//   fallback      mode (local, open, closed, error), ratio, dropped; now: buckets, unwritten
//   policies[]    name, limits, mode (enforce, shadow, off, block), allowed, denied, near_limit (a part of allowed)
//   top           null if it is not kept, else denied[], allowed[], most first: key, policy or null (limits of the call), count (which halves every
//                 minute), error (by how much count may be too high)
//   history       step_s, end_ms (of the last point), and up to 600 points, oldest first: allowed, denied, degraded
//                 (a second), p50_us, p99_us of checks (0: there was none)
//
// GET /api/key?key=<as shown>: key, limits[] (policy or null, algorithm, limit, window_ms, used, entries[] of [at_ms,
// cost], next_ms until more is free than now, free_ms until all is), override, penalty, leases[]. With error: 404 for a
// key without state, 503 while Redis is down.

'use strict';

const POLL_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const ANSWER_TIMEOUT_MS = 5000;
const RECENT_POINTS = 10;
const SHOWN_POINTS = 600;
const KEYS_SHOWN = 8;
const MOST_KEYS_SHOWN = 100;
const CHANGES_SHOWN = 5;
const KEY_CHARACTERS = 40;
const THIN = '\u202f';
const SVG = 'http://www.w3.org/2000/svg';

// ---- Theme. Here at the top, before anything is painted, so that a remembered one does not flash.

function useTheme(theme) {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** What is done with storage, which may be forbidden: then nothing is remembered. */
function withStorage(use) {
  try { use(localStorage); } catch { /* So be it. */ }
}

withStorage((storage) => useTheme(storage.theme));

// ---- Text. Whatever a client or Redis said goes through visible(), and into the page as text alone.

// Blanks at the ends too.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]|^\p{Zs}+|\p{Zs}+$/gu;
const utf8 = new TextEncoder();

/** The text with what does not print, or turns the direction of what follows, as the bytes that it is. */
function visible(text) {
  return String(text).replace(UNSEEN, (unseen) => Array.from(utf8.encode(unseen), (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''));
}

/** At most so many characters of it, cut in the middle but not within an escape. */
function cut(text, most = KEY_CHARACTERS) {
  if (text.length <= most) return text;
  const pieces = text.match(/\\x[0-9a-f]{2}|\\.|[^]/gu);
  const half = (pieces) => {
    let length = 0;
    return pieces.slice(0, pieces.findIndex((piece) => (length += piece.length) > most / 2));
  };
  return `${half(pieces).join('')}…${half(pieces.reverse()).reverse().join('')}`;
}

/** What somebody named: cut in the middle if it is long, with the whole in the title. */
const titled = (text, most) => h('bdi', { class: 'name', title: visible(text) }, cut(visible(text), most));

/** As a sentence of its own, whoever wrote it. */
function sentence(text) {
  const seen = visible(text ?? '').trim();
  return seen && seen[0].toUpperCase() + seen.slice(1) + (/[.!?]$/.test(seen) ? '' : '.');
}

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4, useGrouping: 'always' });
/** In whole up to 10,000 million. */
const count = (number) => (number < 1e10 ? grouped : compact).format(number);

function rate(perSecond) {
  if (perSecond >= 100) return short.format(perSecond);
  return perSecond >= 10 || Number.isInteger(perSecond) ? count(perSecond) : Math.max(perSecond, 0.1).toFixed(1);
}

/** Never 0 % or 100 % of what is only nearly so; a dash if there is no whole. */
function percent(part, whole) {
  if (whole === 0) return '–';
  const share = (100 * part) / whole;
  if (share > 0 && share < 0.1) return `under 0.1${THIN}%`;
  if (share < 100 && share >= 99.9) return `over 99.9${THIN}%`;
  const shown = share < 10 || share > 99 ? share.toFixed(1).replace(/\.0$/, '') : share.toFixed(0);
  return `${shown}${THIN}%`;
}

function micros(us) {
  if (us === null || us === undefined) return '–';
  if (us < 1000) return `${short.format(us)}${THIN}µs`;
  return us < 1e6 ? `${short.format(us / 1000)}${THIN}ms` : `${short.format(us / 1e6)}${THIN}s`;
}

/** In its two largest units. */
function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}${THIN}ms`;
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  let seconds = Math.floor(ms / 1000);
  const first = units.findIndex(([, size]) => seconds >= size);
  return units.slice(first, first + 2).map(([unit, size]) => {
    const whole = Math.floor(seconds / size);
    seconds -= whole * size;
    return whole > 0 ? `${whole}${THIN}${unit}` : '';
  }).filter(Boolean).join(' ');
}

const clockTime = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const dateTime = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** A moment, as how long it is before `nowMs`; its date stands in the title. */
function moment(atMs, nowMs, suffix = ' ago') {
  const props = { datetime: new Date(atMs).toISOString(), title: dateTime.format(atMs) };
  return h('time', props, duration(nowMs - atMs) + suffix);
}

/** `100 1s 5000 1h` as 100 / 1 s, 5,000 / 1 h; what is more than pairs stays as it is written. */
function limitsText(limits) {
  if (!/^(\d+ \w+( |$))+$/.test(limits)) return visible(limits);
  const pairs = limits.match(/\d+ \w+/g).map((pair) => pair.split(' '));
  return pairs.map(([limit, window]) => `${count(Number(limit))}\u00a0/\u00a0${window.replace(/(\d)([a-z])/, `$1${THIN}$2`)}`).join(', ');
}

// ---- Elements. A view makes a new tree every second; fill() changes what is there to be like it, so that focus,
// selection, and the place where a screen reader stands remain.

const request = (path) => fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
const byId = (id) => document.getElementById(id);

function make(element, props, children) {
  const isThere = (value) => value !== null && value !== undefined && value !== false;
  for (const [key, value] of Object.entries(props ?? {})) if (isThere(value)) element.setAttribute(key, value);
  element.append(...children.flat(Infinity).filter((child) => isThere(child) && child !== ''));
  return element;
}

const h = (tag, props, ...children) => make(document.createElement(tag), props, children);
const s = (tag, props, ...children) => make(document.createElementNS(SVG, tag), props, children);

/** Makes these the children of an element, or of that with this id. */
function fill(parent, ...nodes) {
  alike(typeof parent === 'string' ? byId(parent) : parent, make(document.createDocumentFragment(), null, nodes));
}

function alike(parent, fresh) {
  let old = parent.firstChild;
  for (const node of [...fresh.childNodes]) {
    if (old === null) {
      parent.append(node);
      continue;
    }
    const next = old.nextSibling;
    if (old.nodeName !== node.nodeName) old.replaceWith(node);
    else if (old.nodeType === Node.TEXT_NODE) { if (old.data !== node.data) old.data = node.data; }
    else {
      for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
      for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      alike(old, node);
    }
    old = next;
  }
  while (old !== null) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

/** Shares of a whole, one after another: [share from 0 to 1, class]. For the eye; the numbers stand beside it. */
function bar(...parts) {
  let x = 0;
  const rects = parts.map(([share, kind]) => {
    const width = Math.max(0, Math.min(share, 1 - x));
    const rect = s('rect', { class: kind, x: `${(100 * x).toFixed(2)}%`, width: `${(100 * width).toFixed(2)}%`, height: '100%' });
    x += width;
    return rect;
  });
  return s('svg', { class: 'bar', 'aria-hidden': 'true' }, rects);
}

const share = (part, whole) => (whole > 0 ? part / whole : 0);
const tag = (text, kind) => span(`tag ${kind ?? ''}`, text);
const cell = (kind, ...children) => h('td', { class: kind }, ...children);
const row = (title, ...cells) => h('tr', null, h('th', { scope: 'row' }, title), ...cells);
const span = (kind, ...children) => h('span', { class: kind }, ...children);
const small = (...children) => h('small', null, ...children);
const muted = (...children) => h('p', { class: 'muted' }, ...children);
const dot = (kind) => h('span', { class: `dot ${kind}`, 'aria-hidden': 'true' });
const pairs = (list, kind) => h('dl', { class: kind }, list.map(([term, what]) => h('div', null, h('dt', null, term), h('dd', null, what))));

function table(caption, heads, rows) {
  return h('table', null,
    h('caption', { class: 'hidden' }, caption),
    h('thead', null, h('tr', null, heads.map(([text, kind]) => h('th', { scope: 'col', class: kind }, text)))),
    h('tbody', null, rows));
}

// ---- The state, in a sentence.

const isUnasked = ({ answers }) => sum(Object.values(answers)) === 0;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mean = (numbers) => (numbers.length ? sum(numbers) / numbers.length : 0);

function recentRates(history) {
  const [allowed, denied, degraded] = ['allowed', 'denied', 'degraded'].map((kind) => mean(history[kind].slice(-RECENT_POINTS)));
  return { allowed, denied, degraded, all: allowed + denied + degraded };
}

const checksASecond = (all) => `${rate(all)}\u00a0${rate(all) === '1' ? 'check' : 'checks'} a second`;

function traffic({ all, denied }) {
  if (all === 0) return 'No check in the last 10 seconds.';
  return `${checksASecond(all)}, ${denied > 0 ? percent(denied, all) : 'none'} denied.`;
}

const FALLBACKS = { open: 'every check is allowed', closed: 'every check is denied', error: 'every check gets an error' };

// A verdict is what the top of the page says: mark, the title's word, head, tail, facts as [term, text], what is spoken.

function degradedVerdict(state) {
  const { nodes, fallback, now_ms: nowMs, state: { since_ms: sinceMs, cause, advice } } = state;
  const rates = recentRates(state.history);
  const primaries = nodes.filter(({ role }) => role === 'primary');
  const down = primaries.filter(({ up }) => !up).length;
  const isPart = state.mode === 'cluster' && down > 0 && down < primaries.length;
  const who = isPart ? `${down} of ${primaries.length} primaries` : 'Redis';
  const [has, is, its] = isPart && down > 1 ? ['have', 'are', 'their'] : ['has', 'is', 'its'];
  const what = `: answers${isPart ? ` for ${its} keys` : ''} are degraded.`;
  const [before, after, spoken] = down > 0
    ? [`${who} ${has} been down for `, what, `${who} ${is} down${what}`]
    : ['Answers have been degraded for ', '.', 'Answers are degraded.'];
  const mode = FALLBACKS[fallback.mode] ?? `local buckets admit ${percent(fallback.ratio, 1)} of each limit`;
  const load = rates.all === 0 ? traffic(rates) : `${checksASecond(rates.all)}, ${percent(rates.degraded, rates.all)} of them degraded.`;
  const facts = [
    ['Cause', sentence(cause)],
    ['What to do', sentence(advice)],
    ['Meanwhile', `${sentence(isPart ? `for those keys ${mode}` : mode)} ${load}`],
  ].filter(([, text]) => text);
  return { mark: 'bad', word: 'Degraded', head: [before, moment(sinceMs, nowMs, ''), after], facts, spoken: [spoken, sentence(cause), sentence(advice)].join(' ') };
}

function exactVerdict(state) {
  const bad = troubles(state);
  const shared = { mark: bad.length ? 'warn' : 'good', facts: [...bad, ...news(state)] };
  // Without the figures, which change without being news.
  const spokenOf = (head) => [head, ...bad.map(([, text, said]) => said ?? text)].join(' ');
  if (isUnasked(state)) {
    const head = 'Ready. No check has come yet.';
    return { ...shared, word: 'Ready', head: [head], spoken: spokenOf(head) };
  }
  const head = state.mode === 'embedded' ? 'All exact, without a Redis.' : 'All exact.';
  return { ...shared, word: 'Exact', head: [head], tail: traffic(recentRates(state.history)), spoken: spokenOf(head) };
}

/** What is not as it should be though all answers are exact. */
function troubles({ nodes, clients }) {
  const down = nodes.filter((node) => !node.up).length;
  const warned = nodes.filter((node) => node.up && node.problem);
  const facts = [];
  if (down) facts.push(['Redis', `${down} of ${nodes.length} nodes ${down === 1 ? 'is' : 'are'} down, which no check needs now.`]);
  if (warned.length) {
    const more = warned.length > 1 ? ` And ${warned.length - 1} more, below.` : '';
    facts.push(['Warning', `${sentence(warned[0].problem)} ${sentence(warned[0].advice)}${more}`]);
  }
  if (clients.connected >= 0.9 * clients.max) {
    facts.push(['Clients', `${count(clients.connected)} of at most ${count(clients.max)}: soon more are turned away.`, 'Nearly as many clients as are let in.']);
  }
  return facts;
}

/** What is well, but who looks at three in the morning wants to know. */
function news({ history, fallback, policies }) {
  const facts = [];
  const degraded = sum(history.degraded) * history.step_s;
  if (degraded > 0) {
    const left = fallback.unwritten > 0 ? ` Admissions still to be written to Redis: ${count(fallback.unwritten)}.` : '';
    facts.push(['Lately', `Degraded answers in the last 10 minutes: ${count(degraded)}.${left}`]);
  }
  const loose = policies.filter(({ mode }) => mode === 'shadow' || mode === 'off');
  if (loose.length) {
    const named = loose.slice(0, 3).map(({ name, mode }) => `${cut(visible(name), 24)} (${mode})`).join(', ');
    facts.push(['Not enforced', `${named}${loose.length > 3 ? ` and ${loose.length - 3} more` : ''}.`]);
  }
  return facts;
}

const MARKS = { good: 'M5 12.5l4.5 4.5L19 7.5', warn: 'M12 5.5v8M12 17.2v.6', bad: 'M7 7l10 10M17 7L7 17', lost: 'M6 12h12' };
const ICON_COLOURS = { good: '2f8f5f', warn: 'c98a00', bad: 'd0402f', lost: '888888' };
const iconOf = (colour) => `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23${colour}'/%3E%3C/svg%3E`;

function showVerdict({ mark, word, head, tail, facts, spoken }) {
  byId('state').className = mark;
  const sign = s('svg', { viewBox: '0 0 24 24', class: 'mark', 'aria-hidden': 'true' }, s('path', { d: MARKS[mark] }));
  fill('sentence', sign, span(null, h('strong', null, head), tail && [' ', span('soft', tail)]));
  fill('why', facts.length > 0 && pairs(facts));
  const [title, icon] = [`${word} · Tollgate`, iconOf(ICON_COLOURS[mark])];
  if (document.title !== title) document.title = title;
  if (byId('icon').href !== icon) byId('icon').href = icon;
  if (byId('spoken').textContent !== spoken) byId('spoken').textContent = spoken;
}

// ---- Charts of the last ten minutes. Both show the second that is pointed at in either.

const GUTTER_PX = 52;
const AXIS_PX = 22;
const TOP_PX = 8;
let pointedAt = null;

/** Draws a chart as large as its box: axes, and what `marks` makes of `at(index, value)`, the place of a point. */
function draw(id, label, history, scale, marks) {
  const box = byId(id);
  const width = Math.max(200, box.clientWidth);
  const height = box.clientHeight;
  const bottom = height - AXIS_PX;
  const points = history.allowed.length;
  const place = (share) => GUTTER_PX + share * (width - GUTTER_PX);
  const x = (index) => place(1 - (points - 1 - index) / (SHOWN_POINTS - 1));
  const y = (value) => TOP_PX + (1 - scale.place(value)) * (bottom - TOP_PX);
  const at = (index, value) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`;
  const across = (kind, y) => s('line', { class: kind, x1: GUTTER_PX, x2: width, y1: y, y2: y });
  const text = (x, y, anchor, what) => s('text', { class: 'tick', x, y, 'text-anchor': anchor }, what);
  const grid = scale.ticks.map((tick) => [across('grid', y(tick)), text(GUTTER_PX - 8, y(tick) + 4, 'end', scale.label(tick))]);
  const spanMs = SHOWN_POINTS * history.step_s * 1000;
  const times = [[0, 'start', `${duration(spanMs)} ago`], [0.5, 'middle', `${duration(spanMs / 2)} ago`], [1, 'end', 'now']];
  fill(box, s('svg', { role: 'img', 'aria-label': label, width, height, viewBox: `0 0 ${width} ${height}` },
    marks(at), grid, across('base', bottom), times.map(([share, anchor, what]) => text(place(share), height - 5, anchor, what)),
    pointedAt !== null && s('line', { class: 'pointer', x1: x(pointedAt), x2: x(pointedAt), y1: TOP_PX, y2: bottom })));
}

/** From 0 to a round number not below the highest value. */
function linear(highest) {
  const size = 10 ** Math.floor(Math.log10(Math.max(highest, 4) / 4));
  const step = size * [1, 2, 2.5, 5, 10].find((part) => part * size * 4 >= highest && Number.isInteger(part * size));
  const ticks = [1, 2, 3, 4].map((index) => index * step).filter((tick) => tick < highest + step);
  const top = ticks[ticks.length - 1];
  return { ticks, place: (value) => value / top, label: (tick) => `${tick < 1e4 ? count(tick) : compact.format(tick).replace('K', 'k')} /s` };
}

/** By proportion, from a round number not above the lowest value to one not below the highest. */
function logarithmic(lowest, highest) {
  const round = [];
  for (let size = 1; size <= 1e8; size *= 10) round.push(size, 2 * size, 5 * size);
  const first = round.findLastIndex((tick) => tick <= Math.max(lowest, 1));
  const last = Math.max(first + 1, round.findIndex((tick) => tick >= highest));
  const [from, to] = [round[first], round[last]];
  const all = round.slice(first, last + 1);
  const ticks = all.length > 5 ? all.filter((_, index) => (first + index) % 3 === 0) : all;
  return { ticks, place: (value) => Math.log(value / from) / Math.log(to / from), label: micros };
}

/** A line through the points at which something is. */
function lineThrough(points, isThere) {
  return points.map((point, index) => isThere(index) && (index > 0 && isThere(index - 1) ? 'L' : 'M') + point).filter(Boolean).join('');
}

const KINDS = [['allowed', 'Allowed'], ['denied', 'Denied'], ['degraded', 'Degraded']];

const HATCH = s('defs', null, s('pattern', { id: 'hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
  s('rect', { class: 'hatch-ground', width: 6, height: 6 }), s('rect', { class: 'hatch-line', width: 2.5, height: 6 })));

function showRates({ history }) {
  const shown = pointedAt !== null ? Object.fromEntries(KINDS.map(([kind]) => [kind, history[kind][pointedAt]])) : recentRates(history);
  const all = sum(KINDS.map(([kind]) => shown[kind]));
  fill('rates-when', whenText(history));
  fill('rates-figures', KINDS.map(([kind, label]) => h('div', { class: shown[kind] === 0 ? 'figure none' : 'figure' },
    span(`key ${kind}`, label),
    span('value', rate(shown[kind]), small(' /s')),
    span('soft', all > 0 && percent(shown[kind], all)))));

  const totals = history.allowed.map((_, index) => sum(KINDS.map(([kind]) => history[kind][index])));
  const highest = Math.max(0, ...totals);
  const label = `Answers a second over the last 10 minutes, stacked. Now ${KINDS.map(([kind, word]) => `${word.toLowerCase()} ${rate(recentRates(history)[kind])}`).join(', ')}; at most ${count(highest)} in all.`;
  draw('rates-chart', label, history, linear(highest), (at) => {
    let below = totals.map(() => 0);
    const areas = KINDS.map(([kind]) => {
      const values = history[kind];
      const above = below.map((value, index) => value + values[index]);
      const edge = above.map((value, index) => at(index, value));
      const back = below.map((value, index) => at(index, value)).reverse();
      below = above;
      if (!values.some((value) => value > 0)) return null;
      // No line of the denied, say, through a time in which there were none.
      const line = lineThrough(edge, (index) => values[index] > 0 || values[index - 1] > 0 || values[index + 1] > 0);
      return [s('polygon', { class: `area ${kind}`, points: edge.concat(back).join(' ') }), s('path', { class: `edge ${kind}`, d: line })];
    });
    return [HATCH.cloneNode(true), areas];
  });
  fill('rates-table', table('Answers by minute', [['Minute'], ...KINDS.map(([, word]) => [word])], minutes(history).map(({ at, from, to }) => row(at, KINDS.map(([kind]) => cell(null, count(sum(history[kind].slice(from, to)) * history.step_s)))))));
}

function showLatency({ history, latency, mode }) {
  const pointed = pointedAt !== null;
  const check = pointed ? { p50_us: history.p50_us[pointedAt] || null, p99_us: history.p99_us[pointedAt] || null } : latency.check;
  const store = mode !== 'embedded' && latency.store;
  const times = (label, { p50_us: p50, p99_us: p99 }) => row(label, cell('value', micros(p50)), cell('value', micros(p99)));
  fill('latency-when', whenText(history));
  fill('latency-figures', h('table', null, h('caption', { class: 'hidden' }, 'Latency'),
    h('thead', null, h('tr', null, h('td'), ['p50', 'p99'].map((kind) => h('th', { scope: 'col' }, span(`key ${kind}`, kind))))),
    h('tbody', null, times('Checks', check ?? {}), store && times('Redis', pointed ? {} : store))));

  const seen = history.p50_us.filter((us) => us > 0);
  const highest = Math.max(0, ...history.p99_us);
  const label = `Latency of checks over the last 10 minutes. Now p50 ${micros(latency.check?.p50_us)}, p99 ${micros(latency.check?.p99_us)}; p99 at most ${micros(highest)}.`;
  draw('latency-chart', label, history, logarithmic(seen.length ? Math.min(...seen) : 100, highest), (at) => ['p99', 'p50'].map((kind) => {
    const values = history[`${kind}_us`];
    return s('path', { class: `line ${kind}`, d: lineThrough(values.map((us, index) => at(index, Math.max(us, 1))), (index) => values[index] > 0) });
  }));
  fill('parts', store && partsText(latency));
  fill('latency-table', table('Latency of checks by minute', [['Minute'], ['p50, median'], ['p99, highest']], minutes(history).map(({ at, from, to }) => {
    const p50 = history.p50_us.slice(from, to).filter((us) => us > 0).sort((a, b) => a - b);
    const p99 = Math.max(0, ...history.p99_us.slice(from, to));
    return row(at, cell(null, micros(p50[p50.length >> 1])), cell(null, micros(p99 || null)));
  })));
}

/** Whether it is Redis or Tollgate that takes the time. Medians do not add up exactly: hence "about". */
function partsText({ check, store }) {
  if (!check?.p50_us || !store?.p50_us) return null;
  const own = check.p50_us - store.p50_us;
  if (own < 0) return muted('Most checks are answered without a trip to Redis.');
  return [
    bar([share(store.p50_us, check.p50_us), 'redis'], [share(own, check.p50_us), 'own']),
    muted(`Of a typical check, Redis takes about ${micros(store.p50_us)} and Tollgate ${micros(own)}.`),
  ];
}

const whenText = ({ end_ms: endMs, step_s: stepS, allowed }) => (pointedAt === null ? `mean of the last 10${THIN}s` : `at ${clockTime.format(endMs - (allowed.length - 1 - pointedAt) * stepS * 1000)}`);

/** The ranges of points of each minute, newest first, and when it began. */
function minutes({ allowed: { length }, end_ms: endMs, step_s: stepS }) {
  const size = Math.max(1, Math.round(60 / stepS));
  return Array.from({ length: Math.ceil(length / size) }, (_, index) => {
    const to = length - index * size;
    const from = Math.max(0, to - size);
    return { from, to, at: clockTime.format(endMs - (length - from) * stepS * 1000) };
  });
}

// ---- Redis.

const TITLES = { redis: 'Redis', sentinel: 'Redis by Sentinel', cluster: 'Redis Cluster', embedded: 'No Redis' };

function showStore({ mode, nodes, now_ms: nowMs }) {
  fill('store-title', TITLES[mode] ?? visible(mode));
  const up = nodes.filter((node) => node.up).length;
  fill('store-summary', nodes.length > 1 && `${up} of ${nodes.length} up`);
  if (nodes.length === 0) {
    fill('nodes', h('p', null, mode === 'embedded'
      ? 'Embedded: what was admitted is counted in this process’s own memory, and forgotten when it stops.'
      : 'No node is known yet.'));
    fill('changes');
    return;
  }
  fill('nodes', table('Nodes', [['Node'], ['State'], ['Round trip', 'number'], ['Breaker', 'end']], nodes.map((node) => nodeRows(node, nowMs))));
  const changes = nodes.flatMap((node) => (node.changes ?? []).map((change) => ({ ...change, addr: node.addr }))).sort((a, b) => b.at_ms - a.at_ms);
  fill('changes', h('h3', null, 'Last changes'), changes.length === 0
    ? muted('None since the start.')
    : h('ul', null, changes.slice(0, CHANGES_SHOWN).map(({ at_ms: atMs, up, cause, addr }) => h('li', null,
      dot(up ? 'good' : 'bad'),
      span(null, nodes.length > 1 && [titled(addr, 30), ' '], up ? 'came up' : 'went down', !up && cause ? `: ${visible(cause)}` : ''),
      moment(atMs, nowMs)))));
}

function nodeRows(node, nowMs) {
  const { addr, role, slots, up, since_ms: sinceMs, breaker, round_trip_us: roundTripUs, problem, advice } = node;
  return [
    row([titled(addr), small(visible(role), slots && `, slots ${visible(slots).replaceAll('-', '\u2011')}`)],
      cell(null, dot(!up ? 'bad' : problem ? 'warn' : 'good'), up ? 'Up' : 'Down',
        sinceMs > 0 && small(moment(sinceMs, nowMs, ''))),
      cell('number', micros(up ? roundTripUs : null)),
      cell('end', breaker === 'closed' ? 'closed' : tag(visible(breaker), 'bad'))),
    problem && h('tr', { class: 'note' }, h('td', { colspan: 4 }, `${sentence(problem)} ${sentence(advice)}`)),
  ];
}

// ---- Keys.

// No name of a policy has a blank or a parenthesis.
const POLICY_OF_CALL = '(in the call)';
const chosenOf = { denied: { all: false, policy: null }, allowed: { all: false, policy: null } };

/** `isAsked`: by whoever uses the page, not by the passing of time. */
function showTop(kind, entries, isAsked) {
  const top = chosenOf[kind];
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
    h('p', { class: 'muted note-below' }, 'Counts halve every minute. By the number after −, pale in the bar, they may be too high.'),
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
  const isFull = used >= most;
  return h('article', { class: 'limit' },
    h('h4', null, `${count(most)} in ${duration(windowMs)}`, small(' ', policy === null ? 'in the call' : ['policy ', titled(policy, 24)], ', ', visible(algorithm))),
    h('p', { class: 'used' }, h('strong', { class: isFull ? 'bad-text' : null }, count(used)), ` of ${count(most)} used`, span('muted', isFull ? 'denies now' : `${count(most - used)} left`)),
    bar([share(used, most), isFull ? 'denied' : 'allowed']),
    entries?.length > 0 && strip(entries, windowMs, nowMs),
    muted(used === 0 ? 'All of it is free.' : nextMs < freeMs ? `More is free in ${duration(nextMs)}, all in ${duration(freeMs)}.` : `All is free in ${duration(freeMs)}.`));
}

const STRIP_BARS = 96;

/** When in the window the entries were made, and how heavy they are. */
function strip(entries, windowMs, nowMs) {
  const weights = new Array(STRIP_BARS).fill(0);
  for (const [atMs, cost] of entries) {
    const place = Math.floor((1 - (nowMs - atMs) / windowMs) * STRIP_BARS);
    weights[Math.max(0, Math.min(STRIP_BARS - 1, place))] += cost;
  }
  const heaviest = Math.max(...weights);
  const tall = (weight) => Math.max(2, (24 * weight) / heaviest);
  const ages = entries.map(([atMs]) => nowMs - atMs).sort((a, b) => a - b);
  const total = entries.length === 1 ? '1 entry' : `${count(entries.length)} entries`;
  const label = `${total}, the oldest ${duration(ages.at(-1))} ago, the newest ${duration(ages[0])} ago`;
  return h('figure', { class: 'strip' },
    s('svg', { role: 'img', 'aria-label': label, viewBox: `0 0 ${STRIP_BARS} 24`, preserveAspectRatio: 'none' },
      weights.map((weight, index) => weight > 0 && s('rect', { class: 'allowed', x: index, width: 0.7, y: 24 - tall(weight), height: tall(weight) }))),
    h('figcaption', null, [`${duration(windowMs)} ago`, total, 'now'].map((text) => span(null, text))));
}

// ---- Policies, and Tollgate itself.

const MODES = { enforce: ['enforced'], shadow: ['shadow', 'warn'], off: ['off', 'warn'], block: ['blocks', 'bad'] };

function showPolicies({ policies, uptime_s: uptimeS }) {
  fill('policies-summary', policies.length > 0 && `since the start, ${duration(uptimeS * 1000)} ago`);
  const rows = policies.map(({ name: title, limits, mode, allowed, denied, near_limit: near }) => {
    const all = allowed + denied;
    const [word, kind] = MODES[mode] ?? [visible(mode)];
    return row([titled(title, 32), h('small', { title: visible(limits) }, cut(limitsText(limits), 60))],
      cell(null, kind ? tag(word, kind) : word),
      cell('number checks', count(all)),
      cell('number', percent(near, all)),
      cell('number', percent(denied, all)),
      cell('shares', all > 0 && bar([share(allowed - near, all), 'allowed'], [share(near, all), 'near'], [share(denied, all), 'denied'])));
  });
  fill('policy-rows', rows.length === 0
    ? muted('None. Limits stand in the calls themselves. Those with a name, under [policies] in the configuration, are seen here.')
    : [
      table('Policies', [['Policy'], ['Mode'], ['Checks', 'number checks'], ['Near limit', 'number'], ['Denied', 'number'], ['Shares', 'shares']], rows),
      h('p', { class: 'muted note-below' }, `Near the limit: allowed with more than 80${THIN}% of it used. A policy in shadow denies nobody; what it would have denied counts as denied.`),
    ]);
}

function showItself({ clients, answers, forwarded, failed_logins: failedLogins, fallback, mode, uptime_s: uptimeS }) {
  fill('itself-since', `up for ${duration(uptimeS * 1000)}`);
  const degraded = answers.degraded_allowed + answers.degraded_denied;
  const bad = (number) => span(number > 0 ? 'bad-text' : null, count(number));
  const rows = [
    ['Clients', [`${count(clients.connected)} of ${count(clients.max)}`, bar([share(clients.connected, clients.max), clients.connected >= 0.9 * clients.max ? 'denied' : 'allowed'])]],
    ['Clients turned away', bad(clients.rejected)],
    ['Logins that failed', bad(failedLogins)],
    ['Checks allowed', count(answers.allowed)],
    ['Checks denied', [count(answers.denied + answers.denied_cached), answers.denied_cached > 0 && small(`${percent(answers.denied_cached, answers.denied + answers.denied_cached)} from memory`)]],
    ['Checks refused', bad(answers.refused)],
  ];
  if (mode !== 'embedded') {
    rows.push(
      ['Degraded answers', [count(degraded), degraded > 0 && small(`${percent(answers.degraded_allowed, degraded)} allowed`)]],
      ['Local buckets', [count(fallback.buckets), small(fallback.mode === 'local' ? `at ${percent(fallback.ratio, 1)} of limits` : `fallback is ${visible(fallback.mode)}`)]],
      ['To be written to Redis', count(fallback.unwritten)],
      ['Dropped, never written', bad(fallback.dropped)],
      ['Other commands passed on', count(forwarded)],
    );
  }
  fill('itself-rows', pairs(rows));
}

// ---- Asking, showing, and what if nobody answers.

let latest = null;
let receivedAt = 0;
let lostAt = null;
let waitMs = POLL_MS;
let timer = 0;
let isAsking = false;

const tollgateNow = () => (latest ? latest.now_ms + (performance.now() - receivedAt) : Date.now());

function show(state) {
  if (!(pointedAt in state.history.allowed)) pointedAt = null;
  const isEmpty = isUnasked(state);
  byId('first').hidden = !isEmpty;
  for (const id of ['rates', 'latency']) byId(id).hidden = isEmpty;
  for (const id of ['top-denied', 'top-allowed']) byId(id).hidden = isEmpty || state.top === null;
  byId('lookup').hidden = state.top === null;
  document.body.classList.remove('waiting', 'lost');
  fill('about', visible(state.build ? `${state.version} (${state.build})` : state.version));
  fill('asked', `As of ${clockTime.format(state.now_ms)}.`);
  showVerdict(state.state.exact ? exactVerdict(state) : degradedVerdict(state));
  if (!isEmpty) showCharts(state);
  showStore(state);
  for (const kind of Object.keys(chosenOf)) if (state.top !== null) showTop(kind, state.top[kind]);
  showPolicies(state);
  showItself(state);
}

function showCharts(state) {
  showRates(state);
  showLatency(state);
}

function showLost(reason) {
  lostAt ??= Date.now();
  const since = clockTime.format(lostAt);
  document.body.classList.add('lost');
  const told = 'Tollgate has not answered this page since ';
  const facts = [
    ['Reason', sentence(reason)],
    ['What to do', 'See whether the process runs, and what its log says last. If it does not, its clients get no answers.'],
    ['Meanwhile', `${latest ? `What is below is of ${clockTime.format(latest.now_ms)}. ` : ''}This page keeps trying, every ${duration(waitMs)}.`],
  ];
  showVerdict({ mark: 'lost', word: 'No answer', head: [told, h('time', { title: dateTime.format(lostAt) }, since), '.'], facts, spoken: `${told}${since}.` });
}

/** Shows what came. That it cannot be shown must not pass for a Tollgate that does not answer. */
function receive(state) {
  receivedAt = performance.now();
  latest = state;
  lostAt = null;
  waitMs = POLL_MS;
  try {
    show(state);
  } catch (error) {
    console.error(error);
    fill('sentence', 'This page cannot show what Tollgate answered. Load it anew: the two may be of different versions.');
  }
}

async function ask() {
  clearTimeout(timer);
  if (isAsking) return;
  isAsking = true;
  try {
    const response = await request('/api/state');
    if (!response.ok) throw new Error(`it answered with status ${response.status}`);
    receive(await response.json());
  } catch (error) {
    waitMs = Math.min(lostAt === null ? POLL_MS : waitMs * 2, LONGEST_WAIT_MS);
    showLost(reasonOf(error));
  }
  isAsking = false;
  if (!document.hidden) timer = setTimeout(ask, waitMs);
}

function reasonOf(error) {
  if (error.name === 'TimeoutError') return `it took longer than ${duration(ANSWER_TIMEOUT_MS)}`;
  // The words for a connection that fails differ from browser to browser.
  return error instanceof TypeError && /fetch|network|load/i.test(error.message) ? 'it cannot be reached' : error.message;
}

/** Has both charts show that second, or none if there is no such point. */
function pointAt(index) {
  if (latest === null) return;
  pointedAt = index in latest.history.allowed ? index : null;
  showCharts(latest);
}

function point({ clientX, currentTarget }) {
  const { left, width } = currentTarget.getBoundingClientRect();
  const share = (clientX - left - GUTTER_PX) / (width - GUTTER_PX);
  pointAt(latest?.history.allowed.length - 1 - Math.round((1 - share) * (SHOWN_POINTS - 1)));
}

function begin() {
  for (const radio of document.querySelectorAll('input[name=theme]')) {
    radio.checked = radio.value === (document.documentElement.dataset.theme ?? 'auto');
    radio.addEventListener('change', () => {
      useTheme(radio.value);
      withStorage((storage) => { storage.theme = radio.value; });
    });
  }
  for (const id of ['rates-chart', 'latency-chart']) {
    byId(id).addEventListener('pointermove', point);
    byId(id).addEventListener('pointerleave', () => pointAt(null));
  }
  for (const [kind, top] of Object.entries(chosenOf)) {
    const section = byId(`top-${kind}`);
    const again = () => latest && showTop(kind, latest.top[kind], true);
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
  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : ask()));
  new ResizeObserver(() => latest && showCharts(latest)).observe(byId('rates-chart'));
  const linked = new URLSearchParams(location.hash.slice(1)).get('key');
  if (linked) {
    byId('key').value = linked;
    lookUp(linked);
  }
  ask();
}

document.addEventListener('DOMContentLoaded', begin);
