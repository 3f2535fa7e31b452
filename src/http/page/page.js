// Tollgate's page: asks for the state once a second and shows it. It changes nothing at Tollgate.
//
// GET /api/state, of which this is used. Counts are totals since the start unless said otherwise, times are milliseconds
// of the Unix epoch by Tollgate's clock, and what clients or Redis sent comes as printable text, as redis-cli shows it.
//
//   version, build, now_ms, uptime_s
//   mode              redis, sentinel, cluster, or embedded (then nodes is empty)
//   state             exact, since_ms; while not exact also cause and advice
//   clients           connected (now), max, rejected
//   answers           allowed, denied (by the store), denied_cached, degraded_allowed, degraded_denied, refused (with an
//                     error): each answer is in one of them
//   forwarded, failed_logins
//   latency           check, store: p50_us and p99_us, or null: of about the last ten seconds
//   nodes[]           addr, role, slots or null, up, since_ms (of being up or down), breaker (closed, open, half-open),
//                     round_trip_us or null, problem and advice or null (also a warning, while up),
//                     changes[]: at_ms, up, cause
//   fallback          mode (local, open, closed, error), ratio; now: buckets, unwritten; dropped
//   policies[]        name, limits, mode (enforce, shadow, off, block), allowed, denied, near_limit (part of allowed)
//   top.denied[], top.allowed[]
//                     key, policy or null (limits that stood in the call), count, error (by how much count may be too
//                     high); most first. Counts halve every minute
//   history           step_s, end_ms (of the last point), and up to 600 points, oldest first: allowed, denied, degraded
//                     (a second), p50_us, p99_us of checks (0: there was none)
//
// GET /api/key?key=<as shown>: key, limits[] (policy or null, algorithm, limit, window_ms, used, oldest_ms, newest_ms,
// next_ms until more is free than now, free_ms until all is, entries[] of [at_ms, cost]), override, penalty, leases[].
// 404 for a key without state and 503 while Redis is down, both with error.

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

const remembered = {
  get() { try { return localStorage.getItem('theme'); } catch { return null; } },
  set(theme) { try { localStorage.setItem('theme', theme); } catch { /* Not remembered, where storage is off. */ } },
};

function useTheme(theme) {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

useTheme(remembered.get());

// ---- Text. Whatever a client or Redis said goes through visible(), and into the page as text alone.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
const utf8 = new TextEncoder();

/** The text with what does not print, or turns the direction of what follows, as the bytes that it is. */
function visible(text) {
  const bytes = (character) => Array.from(utf8.encode(character), (byte) => `\\x${byte.toString(16).padStart(2, '0')}`);
  return String(text).replace(UNSEEN, (character) => bytes(character).join(''));
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
const count = (number) => grouped.format(number ?? 0);
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

function rate(perSecond) {
  if (perSecond >= 100) return short.format(perSecond);
  return perSecond >= 10 || Number.isInteger(perSecond) ? count(perSecond) : Math.max(perSecond, 0.1).toFixed(1);
}

/** Never 0 % or 100 % of what is only nearly so. */
function percent(part, whole) {
  const share = whole > 0 ? (100 * part) / whole : 0;
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

/** `100 1s 5000 1h` as 100 a 1 s, 5,000 a 1 h; what is more than pairs stays as it is written. */
function limitsText(limits) {
  const words = visible(limits).split(/\s+/);
  const isPairs = words.length % 2 === 0 && words.every((word, index) => index % 2 ? /^\w+$/.test(word) : /^\d+$/.test(word));
  if (!isPairs) return words.join(' ');
  const pairs = words.flatMap((word, index) => (index % 2 ? [] : [[word, words[index + 1]]]));
  return pairs.map(([limit, window]) => `${count(Number(limit))} / ${window.replace(/^(\d+)([a-z]+)$/, `$1${THIN}$2`)}`).join(', ');
}

// ---- Elements. A view makes a new tree every second; fill() changes what is there to be like it, so that focus,
// selection, and the place where a screen reader stands remain.

const byId = (id) => document.getElementById(id);

function make(element, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ''));
  return element;
}

const h = (tag, props, ...children) => make(document.createElement(tag), props, children);
const s = (tag, props, ...children) => make(document.createElementNS(SVG, tag), props, children);

function fill(parent, ...nodes) {
  const fresh = make(document.createDocumentFragment(), null, nodes);
  alike(parent, fresh);
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
const tag = (text, kind) => h('span', { class: `tag ${kind ?? ''}` }, text);
const cell = (kind, ...children) => h('td', { class: kind }, ...children);

function table(caption, heads, rows) {
  return h('table', null,
    h('caption', { class: 'hidden' }, caption),
    h('thead', null, h('tr', null, heads.map(([text, kind]) => h('th', { scope: 'col', class: kind }, text)))),
    h('tbody', null, rows));
}

// ---- The state, in a sentence.

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const mean = (numbers) => (numbers.length ? sum(numbers) / numbers.length : 0);

function recentRates(history) {
  const [allowed, denied, degraded] = ['allowed', 'denied', 'degraded'].map((kind) => mean(history[kind].slice(-RECENT_POINTS)));
  return { allowed, denied, degraded, all: allowed + denied + degraded };
}

function traffic({ all, denied }) {
  if (all === 0) return 'No check in the last 10 seconds.';
  const checks = `${rate(all)} ${rate(all) === '1' ? 'check' : 'checks'} a second`;
  return `${checks}, ${denied > 0 ? percent(denied, all) : 'none'} denied.`;
}

const FALLBACKS = {
  local: ({ ratio }) => `local buckets admit ${percent(ratio, 1)} of each limit`,
  open: () => 'every check is allowed',
  closed: () => 'every check is denied',
  error: () => 'every check gets an error',
};

/** What the top of the page says: mark (good, warn, bad), head, tail, facts as [term, text], and what is spoken. */
function verdict(state) {
  return state.state.exact ? exactVerdict(state) : degradedVerdict(state);
}

function degradedVerdict(state) {
  const { nodes, fallback, now_ms: nowMs, state: { since_ms: sinceMs, cause, advice } } = state;
  const rates = recentRates(state.history);
  const down = nodes.filter((node) => !node.up).length;
  const time = moment(sinceMs, nowMs, '');
  const isPart = down > 0 && down < nodes.length;
  let head = ['Answers have been degraded for ', time, '.'];
  let spoken = 'Answers are degraded.';
  if (isPart) {
    head = [`${down} of ${nodes.length} nodes ${down === 1 ? 'has' : 'have'} been down for `, time, ': answers for their keys are degraded.'];
    if (down === 1) head[2] = ': answers for its keys are degraded.';
    spoken = `${down} of ${nodes.length} nodes ${down === 1 ? 'is' : 'are'} down: answers for their keys are degraded.`;
  } else if (down > 0) {
    head = ['Redis has been down for ', time, ': answers are degraded.'];
    spoken = 'Redis is down: answers are degraded.';
  }
  const mode = (FALLBACKS[fallback.mode] ?? (() => visible(fallback.mode)))(fallback);
  const load = rates.all === 0 ? traffic(rates) : `${rate(rates.all)} checks a second, ${percent(rates.degraded, rates.all)} of them degraded.`;
  const facts = [
    ['Cause', sentence(cause)],
    ['What to do', sentence(advice)],
    ['Meanwhile', `${sentence(isPart ? `for those keys ${mode}` : mode)} ${load}`],
  ].filter(([, text]) => text);
  return { mark: 'bad', word: 'Degraded', head, tail: '', facts, spoken: [spoken, sentence(cause), sentence(advice)].join(' ') };
}

function exactVerdict(state) {
  const { answers, mode, nodes, history } = state;
  const isEmbedded = mode === 'embedded';
  const facts = [...troubles(state), ...news(state)];
  const mark = troubles(state).length ? 'warn' : 'good';
  if (sum(Object.values(answers)) === 0) {
    const tail = isEmbedded ? 'It counts in its own memory, without a Redis.' : `${nodes.length > 1 ? 'All nodes are' : 'Redis is'} well.`;
    return { mark, word: 'Ready', head: ['Ready. No check has come yet.'], tail: mark === 'good' ? tail : '', facts, spoken: 'Ready. No check has come yet.' };
  }
  const head = isEmbedded ? 'All exact, without a Redis.' : 'All exact.';
  return { mark, word: 'Exact', head: [head], tail: traffic(recentRates(history)), facts, spoken: [head, ...troubles(state).map(([, text]) => text)].join(' ') };
}

/** What is not as it should be though all answers are exact. */
function troubles({ nodes, clients }) {
  const down = nodes.filter((node) => !node.up).length;
  const warned = nodes.filter((node) => node.up && node.problem);
  const facts = [];
  if (down) facts.push(['Redis', `${down} of ${nodes.length} nodes ${down === 1 ? 'is' : 'are'} down, which no check needs now.`]);
  if (warned.length) {
    const more = warned.length > 1 ? ` And ${plural(warned.length - 1, 'other node')} ${warned.length > 2 ? 'have' : 'has'} a warning.` : '';
    facts.push(['Warning', `${sentence(warned[0].problem)} ${sentence(warned[0].advice)}${more}`]);
  }
  if (clients.connected >= 0.9 * clients.max) {
    facts.push(['Clients', `${count(clients.connected)} of at most ${count(clients.max)}: soon more are refused.`]);
  }
  return facts;
}

/** What is well, but who looks at three in the morning wants to know. */
function news({ history, fallback, policies }) {
  const facts = [];
  const degraded = sum(history.degraded) * history.step_s;
  if (degraded > 0) {
    const left = fallback.unwritten > 0 ? ` ${count(fallback.unwritten)} admissions are still to be written to Redis.` : '';
    facts.push(['Lately', `${plural(degraded, 'answer')} of the last 10 minutes ${degraded === 1 ? 'was' : 'were'} degraded.${left}`]);
  }
  const loose = policies.filter(({ mode }) => mode === 'shadow' || mode === 'off');
  if (loose.length) {
    const named = loose.slice(0, 3).map(({ name, mode }) => `${cut(visible(name), 24)} (${mode})`).join(', ');
    facts.push(['Not enforced', `${named}${loose.length > 3 ? ` and ${loose.length - 3} more` : ''}.`]);
  }
  return facts;
}

let spokenLast = '';

function say(text) {
  if (text !== spokenLast) byId('spoken').textContent = spokenLast = text;
}

const MARKS = { good: 'M5 12.5l4.5 4.5L19 7.5', warn: 'M12 5.5v8M12 17.2v.6', bad: 'M7 7l10 10M17 7L7 17', lost: 'M6 12h12' };
const ICON_COLOURS = { good: '2f8f5f', warn: 'c98a00', bad: 'd0402f', lost: '888888' };

function showVerdict({ mark, word, head, tail, facts, spoken }) {
  byId('state').className = mark;
  const icon = s('svg', { viewBox: '0 0 24 24', class: 'mark', 'aria-hidden': 'true' }, s('path', { d: MARKS[mark] }));
  fill(byId('sentence'), icon, h('span', null, h('strong', null, head), tail && ' ', tail && h('span', { class: 'soft' }, tail)));
  fill(byId('why'), facts.length > 0 && h('dl', null, facts.map(([term, text]) => h('div', null, h('dt', null, term), h('dd', null, text)))));
  const title = `${word} · Tollgate`;
  if (document.title !== title) {
    document.title = title;
    byId('icon').href = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23${ICON_COLOURS[mark]}'/%3E%3C/svg%3E`;
  }
  say(spoken);
}

// ---- Charts of the last ten minutes. Both show the second that is pointed at in either.

const CHART_PX = 190;
const AXIS_PX = 22;
const TOP_PX = 16;
let pointedAt = null;

/** The lines of the time axis, and the frame for what is drawn: x(index), y(value), at a width in pixels. */
function frame(history, width, scale) {
  const points = history.allowed.length;
  const x = (index) => width - ((points - 1 - index) / (SHOWN_POINTS - 1)) * width;
  const y = (value) => TOP_PX + (1 - scale.place(value)) * (CHART_PX - AXIS_PX - TOP_PX);
  const bottom = CHART_PX - AXIS_PX;
  const lines = scale.ticks.map((tick) => [
    s('line', { class: 'grid', x1: 0, x2: width, y1: y(tick), y2: y(tick) }),
    s('text', { class: 'tick', x: 0, y: y(tick) - 4 }, scale.label(tick)),
  ]);
  const spanMs = SHOWN_POINTS * history.step_s * 1000;
  const times = [[0, 'start', `${duration(spanMs)} ago`], [width / 2, 'middle', `${duration(spanMs / 2)} ago`], [width, 'end', 'now']];
  const labels = times.map(([at, anchor, text]) => s('text', { class: 'tick', x: at, y: CHART_PX - 5, 'text-anchor': anchor }, text));
  const base = s('line', { class: 'base', x1: 0, x2: width, y1: bottom, y2: bottom });
  const pointer = pointedAt !== null && s('line', { class: 'pointer', x1: x(pointedAt), x2: x(pointedAt), y1: TOP_PX, y2: bottom });
  return { x, y, below: lines, above: [base, labels, pointer] };
}

function draw(box, label, history, scale, marks) {
  const width = Math.max(200, box.clientWidth);
  const { below, above, ...place } = frame(history, width, scale);
  fill(box, s('svg', { role: 'img', 'aria-label': label, width, height: CHART_PX, viewBox: `0 0 ${width} ${CHART_PX}` }, marks.defs, below, marks.of(place), above));
}

/** From 0 to a round number not below the highest value. */
function linear(highest) {
  const step = [1, 2, 2.5, 5, 10].map((part) => part * 10 ** Math.floor(Math.log10(Math.max(highest, 1) / 3))).find((step) => step * 3 >= highest);
  const size = Math.max(step, 1);
  const ticks = [1, 2, 3].map((index) => index * size).filter((tick) => tick < highest + size);
  const top = Math.max(highest, ticks[ticks.length - 1]);
  return { ticks, place: (value) => value / top, label: (tick) => `${count(tick)} /s` };
}

/** By powers of ten, from below the lowest value to above the highest. */
function logarithmic(lowest, highest) {
  const from = Math.floor(Math.log10(Math.max(lowest, 1)));
  const to = Math.max(Math.ceil(Math.log10(Math.max(highest, 1))), from + 1);
  const ticks = Array.from({ length: to - from + 1 }, (_, index) => 10 ** (from + index));
  return { ticks, place: (value) => (Math.log10(Math.max(value, 1)) - from) / (to - from), label: micros };
}

const KINDS = [['allowed', 'Allowed'], ['denied', 'Denied'], ['degraded', 'Degraded']];

function showRates({ history }) {
  const pointed = pointedAt !== null;
  const shown = pointed ? Object.fromEntries(KINDS.map(([kind]) => [kind, history[kind][pointedAt]])) : recentRates(history);
  const all = sum(KINDS.map(([kind]) => shown[kind]));
  fill(byId('rates-when'), whenText(history));
  fill(byId('rates-figures'), KINDS.map(([kind, label]) => h('div', { class: shown[kind] === 0 ? 'figure none' : 'figure' },
    h('span', { class: `key ${kind}` }, label),
    h('span', { class: 'value' }, rate(shown[kind]), h('small', null, ' /s')),
    h('span', { class: 'of' }, all > 0 ? percent(shown[kind], all) : ''))));

  const totals = history.allowed.map((_, index) => sum(KINDS.map(([kind]) => history[kind][index])));
  const highest = Math.max(0, ...totals);
  const label = `Answers a second over the last 10 minutes, stacked. Now ${KINDS.map(([kind, word]) => `${word.toLowerCase()} ${rate(recentRates(history)[kind])}`).join(', ')}; at most ${count(highest)} in all.`;
  draw(byId('rates-chart'), label, history, linear(highest), {
    defs: s('defs', null, s('pattern', { id: 'hatch', width: 6, height: 6, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
      s('rect', { class: 'hatch-ground', width: 6, height: 6 }), s('rect', { class: 'hatch-line', width: 2.5, height: 6 }))),
    of({ x, y }) {
      let below = totals.map(() => 0);
      return KINDS.filter(([kind]) => history[kind].some((value) => value > 0)).map(([kind]) => {
        const above = below.map((value, index) => value + history[kind][index]);
        const edge = above.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`);
        const back = below.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).reverse();
        // The edge is drawn only where there is something below it: no line of the denied through a time without any.
        const line = above.map((_, index) => (history[kind][index] > 0 || history[kind][index - 1] > 0 ? `${history[kind][index - 1] === undefined || !(history[kind][index - 1] > 0 || history[kind][index - 2] > 0) ? 'M' : 'L'}${edge[index]}` : '')).join('');
        below = above;
        return [s('polygon', { class: `area ${kind}`, points: edge.concat(back).join(' ') }), s('path', { class: `edge ${kind}`, d: line })];
      });
    },
  });
  fill(byId('rates-rows'), minutes(history).map(({ at, from, to }) => h('tr', null, h('th', { scope: 'row' }, at),
    KINDS.map(([kind]) => cell('number', count(sum(history[kind].slice(from, to)) * history.step_s))))));
}

function showLatency({ history, latency, mode }) {
  const pointed = pointedAt !== null;
  const check = pointed ? { p50_us: history.p50_us[pointedAt] || null, p99_us: history.p99_us[pointedAt] || null } : latency.check;
  const store = mode !== 'embedded' && latency.store;
  const row = (label, times) => h('tr', null, h('th', { scope: 'row' }, label), cell('value', micros(times?.p50_us)), cell('value', micros(times?.p99_us)));
  fill(byId('latency-when'), whenText(history));
  fill(byId('latency-figures'), h('table', null, h('caption', { class: 'hidden' }, 'Latency'),
    h('thead', null, h('tr', null, h('td'), h('th', { scope: 'col' }, h('span', { class: 'key p50' }, 'p50')), h('th', { scope: 'col' }, h('span', { class: 'key p99' }, 'p99')))),
    h('tbody', null, row('Checks', check), store && row('Redis', pointed ? null : store))));

  const seen = history.p50_us.filter((us) => us > 0);
  const highest = Math.max(0, ...history.p99_us);
  const label = `Latency of checks over the last 10 minutes. Now p50 ${micros(latency.check?.p50_us)}, p99 ${micros(latency.check?.p99_us)}; p99 at most ${micros(highest)}.`;
  draw(byId('latency-chart'), label, history, logarithmic(Math.min(...seen, highest), highest), {
    of: ({ x, y }) => ['p99', 'p50'].map((kind) => s('path', { class: `line ${kind}`, d: history[`${kind}_us`].map((us, index, all) => (us > 0 ? `${all[index - 1] > 0 ? 'L' : 'M'}${x(index).toFixed(1)},${y(us).toFixed(1)}` : '')).join('') })),
  });
  fill(byId('parts'), store && partsText(latency));
  fill(byId('latency-rows'), minutes(history).map(({ at, from, to }) => {
    const p50 = history.p50_us.slice(from, to).filter((us) => us > 0).sort((a, b) => a - b);
    const p99 = Math.max(0, ...history.p99_us.slice(from, to));
    return h('tr', null, h('th', { scope: 'row' }, at), cell('number', micros(p50[p50.length >> 1])), cell('number', micros(p99 || null)));
  }));
}

/** Whether it is Redis or Tollgate that takes the time. Medians do not add up exactly: hence "about". */
function partsText({ check, store }) {
  if (!check?.p50_us || !store?.p50_us) return null;
  const own = check.p50_us - store.p50_us;
  if (own < 0) return h('p', { class: 'muted' }, 'Most checks are answered without a trip to Redis.');
  return [
    bar([share(store.p50_us, check.p50_us), 'redis'], [share(own, check.p50_us), 'own']),
    h('p', { class: 'muted' }, `Of a typical check, Redis takes about ${micros(store.p50_us)} and Tollgate ${micros(own)}.`),
  ];
}

const whenText = ({ end_ms: endMs, step_s: stepS, allowed }) => (pointedAt === null ? 'mean of 10 seconds' : `at ${clockTime.format(endMs - (allowed.length - 1 - pointedAt) * stepS * 1000)}`);

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

function showStore({ mode, nodes, now_ms: nowMs, fallback }) {
  fill(byId('store-title'), TITLES[mode] ?? visible(mode));
  const up = nodes.filter((node) => node.up).length;
  fill(byId('store-summary'), nodes.length > 1 && `${up} of ${nodes.length} up`);
  if (nodes.length === 0) {
    fill(byId('nodes'), h('p', null, mode === 'embedded'
      ? 'Embedded: what was admitted is counted in this process’s own memory. Answers are exact as long as this is the only Tollgate, and all is forgotten when it stops.'
      : 'No node is known yet.'));
    fill(byId('changes'));
    return;
  }
  fill(byId('nodes'), table('Nodes', [['Node'], ['State'], ['Round trip', 'number'], ['Breaker', 'end']], nodes.map((node) => nodeRows(node, nowMs))));
  const changes = nodes.flatMap((node) => (node.changes ?? []).map((change) => ({ ...change, addr: node.addr }))).sort((a, b) => b.at_ms - a.at_ms);
  fill(byId('changes'), h('h3', null, 'Last changes'), changes.length === 0
    ? h('p', { class: 'muted' }, 'None since the start.')
    : h('ul', { class: 'changes' }, changes.slice(0, CHANGES_SHOWN).map(({ at_ms: atMs, up, cause, addr }) => h('li', null,
      h('span', { class: up ? 'dot good' : 'dot bad', 'aria-hidden': 'true' }),
      h('span', null, nodes.length > 1 && [titled(addr, 30), ' '], up ? 'came up' : 'went down', !up && cause ? `: ${visible(cause)}` : ''),
      moment(atMs, nowMs)))));
}

function nodeRows(node, nowMs) {
  const { addr, role, slots, up, since_ms: sinceMs, breaker, round_trip_us: roundTripUs, problem, advice } = node;
  return [
    h('tr', { class: problem ? 'with-note' : null },
      h('th', { scope: 'row' }, titled(addr), h('small', null, visible(role), slots ? `, slots ${visible(slots)}` : '')),
      cell(null, h('span', { class: up ? (problem ? 'dot warn' : 'dot good') : 'dot bad', 'aria-hidden': 'true' }), up ? 'Up' : 'Down',
        sinceMs > 0 && h('small', null, moment(sinceMs, nowMs, ''))),
      cell('number', micros(up ? roundTripUs : null)),
      cell('end', breaker === 'closed' ? 'closed' : tag(visible(breaker), 'bad'))),
    problem && h('tr', { class: 'note' }, h('td', { colspan: 4 }, `${sentence(problem)} ${sentence(advice)}`)),
  ];
}

// ---- Keys.

// No name of a policy has a blank or a parenthesis.
const POLICY_OF_CALL = '(in the call)';
const tops = {
  denied: { id: 'top-denied', kind: 'denied', all: false, policy: null, none: 'No key was denied lately.' },
  allowed: { id: 'top-allowed', kind: 'allowed', all: false, policy: null, none: 'No key was allowed lately.' },
};

function showTop(top, entries) {
  const section = byId(top.id);
  const box = section.querySelector('.keys');
  // Who points at a row, or has come to it with the keyboard, must find the same key there when they press.
  const isHeld = box.contains(document.activeElement) || (matchMedia('(hover: hover)').matches && box.matches(':hover'));
  if (isHeld && box.firstChild) return;
  const policies = [...new Set(entries.map(({ policy }) => policy ?? POLICY_OF_CALL))].sort();
  if (top.policy !== null && !policies.includes(top.policy)) top.policy = null;
  const select = section.querySelector('select');
  section.querySelector('.policy-choice').hidden = policies.length < 2;
  fill(select, h('option', { value: '' }, 'All policies'), policies.map((policy) => h('option', { value: policy }, policy === POLICY_OF_CALL ? 'Limits in the call' : cut(visible(policy)))));
  select.value = top.policy ?? '';

  const chosen = entries.filter(({ policy }) => top.policy === null || (policy ?? POLICY_OF_CALL) === top.policy);
  const shown = chosen.slice(0, top.all ? MOST_KEYS_SHOWN : KEYS_SHOWN);
  const most = chosen[0]?.count;
  fill(box, shown.length === 0 ? h('p', { class: 'muted' }, top.none) : [
    table(`Keys ${top.kind} most, lately`, [['Key'], ['Policy'], ['Count', 'number']], shown.map((entry) => keyRow(entry, most, top.kind))),
    h('p', { class: 'muted note-below' }, 'Counts halve every minute. The pale end of a bar, ', h('span', { class: 'nowrap' }, 'after −'), ', may be counted too much.'),
  ]);
  const more = section.querySelector('.more');
  const available = Math.min(chosen.length, MOST_KEYS_SHOWN);
  more.hidden = available <= KEYS_SHOWN;
  more.setAttribute('aria-expanded', top.all);
  fill(more, top.all ? 'Show fewer' : `Show ${available} of ${count(chosen.length)}`);
}

function keyRow({ key, policy, count: number, error }, most, kind) {
  const sure = Math.max(0, number - error);
  return h('tr', null,
    h('th', { scope: 'row' },
      h('button', { type: 'button', class: 'key-button', 'data-key': key, title: visible(key) }, h('bdi', null, cut(visible(key)))),
      bar([share(sure, most), kind], [share(number - sure, most), `${kind} unsure`])),
    cell('policy', policy === null ? h('span', { class: 'muted' }, 'in the call') : titled(policy, 24)),
    cell('number', h('span', { title: error > 0 ? `between ${count(sure)} and ${count(number)}` : 'exactly' }, count(number), error > 0 && h('small', null, `−${count(error)}`))));
}

let asked = 0;

async function lookUp(key) {
  const mine = ++asked;
  history.replaceState(null, '', `#key=${encodeURIComponent(key)}`);
  fill(byId('lookup-result'), h('p', { class: 'muted' }, 'Looking …'));
  let shown;
  try {
    const response = await fetch(`/api/key?key=${encodeURIComponent(key)}`, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const found = await response.json().catch(() => ({}));
    shown = response.ok ? foundKey(found) : notFound(key, response.status, found.error);
  } catch {
    shown = h('p', null, 'Tollgate does not answer.');
  }
  if (mine === asked) fill(byId('lookup-result'), shown);
}

function notFound(key, status, error) {
  const known = { 404: 'It has no state: nothing of it counts now.', 503: 'Redis is down. A key can be looked up when it is back.' }[status];
  return [h('h3', null, titled(key, 80)), h('p', null, known ?? `Tollgate refused: status ${status}.`), !known || status === 503 ? h('p', { class: 'muted' }, sentence(error)) : null];
}

function foundKey({ key, limits, override, penalty, leases }) {
  const nowMs = tollgateNow();
  const extras = [['Override', override], ['Penalty', penalty], ['Leases', leases?.length ? leases : null]].filter(([, value]) => value !== null && value !== undefined);
  return [
    h('h3', null, h('bdi', { class: 'name whole' }, visible(key)), ' ', h('small', { class: 'muted' }, `at ${clockTime.format(nowMs)}`)),
    extras.length > 0 && h('dl', { class: 'extras' }, extras.map(([term, value]) => h('div', null, h('dt', null, term), h('dd', null, plain(value))))),
    limits.length === 0 && h('p', { class: 'muted' }, 'No limit of it has state.'),
    h('div', { class: 'limits' }, limits.map((limit) => limitCard(limit, nowMs))),
  ];
}

/** Anything that JSON holds, in a line. */
function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join('; ');
  if (value !== null && typeof value === 'object') return Object.entries(value).map(([key, part]) => `${visible(key)} ${plain(part)}`).join(', ');
  return typeof value === 'number' ? count(value) : visible(value);
}

function limitCard(limit, nowMs) {
  const { policy, algorithm, limit: most, window_ms: windowMs, used, next_ms: nextMs, free_ms: freeMs, entries } = limit;
  const isFull = used >= most;
  return h('article', { class: 'limit' },
    h('h4', null, `${count(most)} in ${duration(windowMs)}`, h('small', { class: 'muted' }, ' ', policy === null ? 'in the call' : ['policy ', titled(policy, 24)], ', ', visible(algorithm))),
    h('p', { class: 'used' }, h('strong', { class: isFull ? 'bad-text' : null }, count(used)), ` of ${count(most)} used`, h('span', { class: 'muted' }, isFull ? 'denies now' : `${count(most - used)} left`)),
    bar([share(used, most), isFull ? 'denied' : 'allowed']),
    entries?.length > 0 && strip(entries, windowMs, nowMs),
    h('p', { class: 'muted' }, used === 0 ? 'All of it is free.' : nextMs < freeMs ? `More is free in ${duration(nextMs)}, all in ${duration(freeMs)}.` : `All is free in ${duration(freeMs)}.`));
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
  const times = entries.map(([atMs]) => atMs);
  const label = `${plural(entries.length, 'entry', 'entries')}, the oldest ${duration(nowMs - Math.min(...times))} ago, the newest ${duration(nowMs - Math.max(...times))} ago`;
  return h('figure', { class: 'strip' },
    s('svg', { role: 'img', 'aria-label': label, viewBox: `0 0 ${STRIP_BARS} 24`, preserveAspectRatio: 'none' },
      weights.map((weight, index) => weight > 0 && s('rect', { class: 'allowed', x: index, width: 0.7, y: 24 - Math.max(2, (24 * weight) / heaviest), height: Math.max(2, (24 * weight) / heaviest) }))),
    h('figcaption', null, h('span', null, `${duration(windowMs)} ago`), h('span', null, plural(entries.length, 'entry', 'entries')), h('span', null, 'now')));
}

// ---- Policies, and Tollgate itself.

const MODES = { enforce: ['enforced'], shadow: ['shadow', 'warn'], off: ['off', 'warn'], block: ['blocks', 'bad'] };

function showPolicies({ policies, uptime_s: uptimeS }) {
  fill(byId('policies-summary'), policies.length > 0 && `since the start, ${duration(uptimeS * 1000)} ago`);
  const rows = policies.map(({ name: title, limits, mode, allowed, denied, near_limit: near }) => {
    const all = allowed + denied;
    const [word, kind] = MODES[mode] ?? [visible(mode)];
    return h('tr', null,
      h('th', { scope: 'row' }, titled(title, 32), h('small', { title: visible(limits) }, cut(limitsText(limits), 60))),
      cell(null, kind ? tag(word, kind) : word),
      cell('number checks', count(all)),
      cell('number', all > 0 ? percent(near, all) : '–'),
      cell('number', all > 0 ? percent(denied, all) : '–'),
      cell('shares', all > 0 && bar([share(allowed - near, all), 'allowed'], [share(near, all), 'near'], [share(denied, all), 'denied'])));
  });
  fill(byId('policy-rows'), rows.length === 0
    ? h('p', { class: 'muted' }, 'None. Limits stand in the calls themselves; with a name in the configuration, under [policies], they can be changed and seen here.')
    : [
      table('Policies', [['Policy'], ['Mode'], ['Checks', 'number checks'], ['Near limit', 'number'], ['Denied', 'number'], ['', 'shares']], rows),
      h('p', { class: 'muted note-below' }, 'Near the limit: allowed with more than 80', THIN, '% of it used. A policy in shadow denies nobody; what it would have denied is counted as denied.'),
    ]);
}

function showItself({ clients, answers, forwarded, failed_logins: failedLogins, fallback, mode, uptime_s: uptimeS }) {
  fill(byId('itself-since'), `up for ${duration(uptimeS * 1000)}`);
  const degraded = answers.degraded_allowed + answers.degraded_denied;
  const bad = (number) => h('span', { class: number > 0 ? 'bad-text' : null }, count(number));
  const rows = [
    ['Clients', [`${count(clients.connected)} of ${count(clients.max)}`, bar([share(clients.connected, clients.max), clients.connected >= 0.9 * clients.max ? 'denied' : 'allowed'])]],
    ['Clients turned away', bad(clients.rejected)],
    ['Logins that failed', bad(failedLogins)],
    ['Checks allowed', count(answers.allowed)],
    ['Checks denied', [count(answers.denied + answers.denied_cached), answers.denied_cached > 0 && h('small', null, `${percent(answers.denied_cached, answers.denied + answers.denied_cached)} from memory`)]],
    ['Checks refused with an error', bad(answers.refused)],
  ];
  if (mode !== 'embedded') {
    rows.push(
      ['Degraded answers', [count(degraded), degraded > 0 && h('small', null, `${percent(answers.degraded_allowed, degraded)} allowed`)]],
      ['Local buckets', [count(fallback.buckets), h('small', null, fallback.mode === 'local' ? `at ${percent(fallback.ratio, 1)} of limits` : `fallback is ${visible(fallback.mode)}`)]],
      ['To be written to Redis', count(fallback.unwritten)],
      ['Dropped, never written', bad(fallback.dropped)],
      ['Other commands passed on', count(forwarded)],
    );
  }
  fill(byId('itself-rows'), rows.map(([term, value]) => h('div', null, h('dt', null, term), h('dd', null, value))));
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
  if (pointedAt !== null && pointedAt >= state.history.allowed.length) pointedAt = null;
  const isEmpty = sum(Object.values(state.answers)) === 0;
  byId('first').hidden = !isEmpty;
  for (const id of ['rates', 'latency', 'top-denied', 'top-allowed']) byId(id).hidden = isEmpty;
  document.body.classList.remove('waiting', 'lost');
  fill(byId('about'), `${visible(state.version)} (${visible(state.build)})`);
  fill(byId('asked'), `Asked once a second; the last answer is of ${clockTime.format(state.now_ms)}.`);
  showVerdict(verdict(state));
  if (!isEmpty) showCharts(state);
  showStore(state);
  showTop(tops.denied, state.top.denied);
  showTop(tops.allowed, state.top.allowed);
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
  const facts = [
    ['Reason', sentence(reason)],
    ['What to do', 'See whether the process runs, and what its log says last. Clients of it are without answers if it does not.'],
    ['Meanwhile', `${latest ? `What is below is of ${clockTime.format(latest.now_ms)}. ` : ''}This page keeps trying, every ${duration(waitMs)}.`],
  ];
  showVerdict({ mark: 'lost', word: 'No answer', head: ['Tollgate has not answered this page since ', h('time', { datetime: new Date(lostAt).toISOString(), title: dateTime.format(lostAt) }, since), '.'], tail: '', facts, spoken: `Tollgate has not answered this page since ${since}.` });
}

async function ask() {
  clearTimeout(timer);
  if (isAsking) return;
  isAsking = true;
  try {
    const response = await fetch('/api/state', { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    if (!response.ok) throw new Error(`it answered with status ${response.status}`);
    const state = await response.json();
    receivedAt = performance.now();
    show(state);
    latest = state;
    lostAt = null;
    waitMs = POLL_MS;
  } catch (error) {
    waitMs = Math.min(lostAt === null ? POLL_MS : waitMs * 2, LONGEST_WAIT_MS);
    showLost(reasonOf(error));
  }
  isAsking = false;
  if (!document.hidden) timer = setTimeout(ask, waitMs);
}

function reasonOf(error) {
  if (error.name === 'TimeoutError') return `it took longer than ${duration(ANSWER_TIMEOUT_MS)}`;
  // What fetch says of a connection that fails differs from browser to browser, and never says more than this.
  return error instanceof TypeError && /fetch|network|load/i.test(error.message) ? 'it cannot be reached' : error.message;
}

function point(event) {
  if (latest === null) return;
  const { left, width } = event.currentTarget.getBoundingClientRect();
  const points = latest.history.allowed.length;
  const index = Math.round(points - 1 - (1 - (event.clientX - left) / width) * (SHOWN_POINTS - 1));
  pointedAt = index >= 0 && index < points ? index : null;
  showCharts(latest);
}

function unpoint() {
  pointedAt = null;
  if (latest) showCharts(latest);
}

function begin() {
  for (const radio of document.querySelectorAll('input[name=theme]')) {
    radio.checked = radio.value === (document.documentElement.dataset.theme ?? 'auto');
    radio.addEventListener('change', () => { remembered.set(radio.value); useTheme(radio.value); });
  }
  for (const id of ['rates-chart', 'latency-chart']) {
    byId(id).addEventListener('pointermove', point);
    byId(id).addEventListener('pointerleave', unpoint);
  }
  for (const [kind, top] of Object.entries(tops)) {
    const section = byId(top.id);
    const again = () => latest && showTop(top, latest.top[kind]);
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
