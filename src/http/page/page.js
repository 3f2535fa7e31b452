// Tollgate's page: asks for the state once a second and shows it. It changes nothing.
//
// GET /api/state, of which this is used. Counts are totals since the start unless said otherwise; times are milliseconds
// of the Unix epoch by Tollgate's clock; what others sent is printable text, as redis-cli shows bytes.
//
//   version, build, now_ms, uptime_s, forwarded, failed_logins
//   mode          redis, sentinel, cluster, or embedded (then nodes is empty)
//   state         exact, since_ms; while not exact also cause and advice
//   clients       connected (now), max, rejected
//   answers       each in one of: allowed, denied (by the store), denied_cached, degraded_allowed, degraded_denied, refused,
//                 allowed_by_share, allowed_by_policy (both unasked), shadow_denied (and let pass)
//   latency       check, store: p50_us and p99_us of the last ten seconds, or null
//   nodes[]       addr, role, slots or null, up, since_ms (up or down), breaker (closed, open, half-open), round_trip_us,
//                 problem, advice (while up: a warning) or null; changes[]: at_ms, up, cause
//   fallback      mode (local, open, closed, error), ratio, dropped; now: buckets, unwritten
//   policies_mode mode and until_ms of the mode that all share, or null
//   policies[]    name, limits, mode (enforce, shadow, off, block), allowed, denied, near_limit (a part of allowed)
//   top           denied[], allowed[], most first, of the last minute: key, policy or null (limits of the call), count,
//                 error (by how much count may be too high)
//   history       step_s, end_ms (of the last point), and up to 600 points, oldest first: allowed, denied, degraded
//                 (a second), p50_us, p99_us of checks (0: there was none)
//
// GET /api/key?key=<as shown>: key, limits[] (policy or null, algorithm, limit or null if it is the call's, window_ms,
// used, entry_count, oldest_ms, newest_ms, the newest entries[] of [at_ms, cost], next_ms until more is free than now,
// free_ms until all is), override, penalty, leases[]. With error: 404 for a key without state, 503 while Redis is down.

import { clockTime, dateTime, duration, sentence, visible } from './text.js';
import { byId, fill, h } from './elements.js';
import { hear, reasonOf, request } from './ask.js';
import { degradedVerdict, exactVerdict, isUnasked, showVerdict } from './verdict.js';
import { showCharts, useCharts } from './charts.js';
import { showStore } from './redis.js';
import { showTops, useKeys } from './keys.js';
import { showItself, showPolicies } from './tollgate.js';

const POLL_MS = 1000;
const LONGEST_WAIT_MS = 15000;

let latest = null;
let lostAt = null;
let waitMs = POLL_MS;
let timer = 0;
let isAsking = false;

function show(state) {
  const isEmpty = isUnasked(state);
  byId('first').hidden = !isEmpty;
  for (const id of ['rates', 'latency', 'top-denied', 'top-allowed']) byId(id).hidden = isEmpty;
  document.body.classList.remove('waiting', 'lost');
  fill('about', visible(state.build ? `${state.version} (${state.build})` : state.version));
  fill('asked', `As of ${clockTime.format(state.now_ms)}.`);
  showVerdict(state.state.exact ? exactVerdict(state) : degradedVerdict(state));
  if (!isEmpty) showCharts(state);
  showStore(state);
  showTops(state.top);
  showPolicies(state);
  showItself(state);
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
  hear(state.now_ms);
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

useCharts();
useKeys();
document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : ask()));
ask();
