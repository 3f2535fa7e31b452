// Charts of the last ten minutes. Both show the second that is pointed at in either.

import { clockTime, compact, count, duration, micros, percent, rate, sum, THIN } from './text.js';
import { bar, byId, cell, fill, h, muted, row, s, share, small, span, table } from './elements.js';
import { recentRates } from './verdict.js';

const SHOWN_POINTS = 600;
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

let charted = null;

export function showCharts(state) {
  charted = state;
  if (!(pointedAt in state.history.allowed)) pointedAt = null;
  showRates(state);
  showLatency(state);
}

/** Has both charts show that second, or none if there is no such point. */
function pointAt(index) {
  if (charted === null) return;
  pointedAt = index;
  showCharts(charted);
}

function point({ clientX, currentTarget }) {
  const { left, width } = currentTarget.getBoundingClientRect();
  const share = (clientX - left - GUTTER_PX) / (width - GUTTER_PX);
  pointAt(charted?.history.allowed.length - 1 - Math.round((1 - share) * (SHOWN_POINTS - 1)));
}

/** Has the charts follow the pointer, and the width of the page. */
export function useCharts() {
  for (const id of ['rates-chart', 'latency-chart']) {
    byId(id).addEventListener('pointermove', point);
    byId(id).addEventListener('pointerleave', () => pointAt(null));
  }
  new ResizeObserver(() => charted && showCharts(charted)).observe(byId('rates-chart'));
}
