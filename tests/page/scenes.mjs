// What the stub answers: a state of Tollgate by name, and what the page must then say. The figures are made up, but the
// same for each second however often they are asked for.

const POINTS = 600;

/** A number from 0 to 1 that looks random, always the same for a seed. */
function noise(seed) {
  const x = Math.sin(seed * 12.9898) * 43758.5453;
  return x - Math.floor(x);
}

function point(second, { load = 1240, deniedShare = 0.03, isDown = () => false, down = (second) => isDown(second) }) {
  const wave = 1 + 0.12 * Math.sin(second / 97) + 0.05 * Math.sin(second / 13);
  const total = Math.round(load * (wave + 0.1 * (noise(second) - 0.5)));
  // Now and then somebody is denied more, rising and falling over a minute or two.
  const burst = 1 + 9 * Math.max(0, Math.sin(second / 71) * Math.sin(second / 29)) ** 4;
  const degraded = Math.round(total * Number(down(second)));
  const denied = Math.round((total - degraded) * deniedShare * burst * (0.6 + 0.8 * noise(second + 0.5)));
  const slow = down(second) ? 0.25 : 1;
  return {
    allowed: total - degraded - denied,
    denied,
    degraded,
    p50_us: total ? Math.round(slow * (300 + 40 * noise(second + 0.2))) : 0,
    p99_us: total ? Math.round(slow * (760 + 260 * noise(second + 0.3) + 900 * noise(second + 0.4) ** 24 + 60 * burst)) : 0,
  };
}

function history(nowMs, traffic = {}, points = POINTS) {
  const end = Math.floor(nowMs / 1000);
  const all = Array.from({ length: points }, (_, index) => point(end - points + 1 + index, traffic));
  const series = (kind) => all.map((one) => one[kind]);
  return {
    step_s: 1, end_ms: end * 1000, allowed: series('allowed'), denied: series('denied'), degraded: series('degraded'), p50_us: series('p50_us'), p99_us: series('p99_us'),
  };
}

const node = (nowMs, more = {}) => ({
  addr: '10.0.0.5:6379', role: 'primary', slots: null, up: true, since_ms: nowMs - 259_200_000, breaker: 'closed', round_trip_us: 180, problem: null, advice: null, changes: [], ...more,
});

const POLICIES = [
  { name: 'api', limits: '100 1s 5000 1h', mode: 'enforce', allowed: 91_204_331, denied: 2_310_774, near_limit: 6_204_118 },
  { name: 'login', limits: '5 1m 20 1h', mode: 'enforce', allowed: 402_118, denied: 61_207, near_limit: 88_412 },
  { name: 'search', limits: '20 1s', mode: 'shadow', allowed: 8_120_400, denied: 12_077, near_limit: 302_118 },
  { name: 'export', limits: '3 1h 10 1d BY gcra BURST 2', mode: 'enforce', allowed: 1204, denied: 0, near_limit: 12 },
];

const DENIED = [
  ['user:42', 'api', 1204, 12], ['ip:203.0.113.77', 'login', 811, 12], ['tenant:acme:batch-import', 'api', 402, 12], ['user:9917', 'api', 218, 9], ['ip:198.51.100.4', null, 96, 9],
  ['user:1204', 'search', 71, 30], ['user:77', 'api', 40, 31], ['ip:192.0.2.200', 'login', 33, 31], ['user:5512', 'api', 32, 31], ['user:8', 'api', 31, 31],
];
const ALLOWED = [
  ['tenant:acme:batch-import', 'api', 18_422, 40], ['tenant:globex', 'api', 12_004, 40], ['user:42', 'api', 9_917, 40], ['partner:northwind:webhooks', null, 8_125, 41], ['user:31', 'api', 4_410, 41],
  ['user:9917', 'api', 3_918, 41], ['tenant:initech', 'search', 2_204, 44], ['user:12', 'api', 1_870, 44], ['user:1', 'api', 1_650, 44], ['user:2', 'api', 1_649, 46],
];
const keys = (rows) => rows.map(([key, policy, count, error]) => ({ key, policy, count, error }));

/** A Tollgate before one Redis, all well, with what differs. */
function state(nowMs, more = {}) {
  return {
    version: '0.1.0', build: '613790f', now_ms: nowMs, uptime_s: 273_600, mode: 'redis',
    state: { exact: true, since_ms: nowMs - 259_200_000, cause: null, advice: null },
    clients: { connected: 412, max: 10_000, rejected: 0 },
    answers: { allowed: 99_728_053, denied: 1_884_058, denied_cached: 500_000, degraded_allowed: 0, degraded_denied: 0, refused: 0, allowed_by_share: 0, allowed_by_policy: 0, shadow_denied: 0 },
    forwarded: 48_120_337, failed_logins: 0,
    latency: { check: { p50_us: 310, p99_us: 900 }, store: { p50_us: 190, p99_us: 600 } },
    nodes: [node(nowMs)],
    fallback: { mode: 'local', ratio: 0.5, buckets: 0, unwritten: 0, dropped: 0 },
    policies: POLICIES,
    policies_mode: null,
    top: { denied: keys(DENIED), allowed: keys(ALLOWED) },
    history: history(nowMs),
    ...more,
  };
}

const DOWN_MS = 42_000;
const isDownSince = (ms, nowMs) => (second) => second * 1000 > nowMs - ms;
const nothing = { allowed: 0, denied: 0, denied_cached: 0, degraded_allowed: 0, degraded_denied: 0, refused: 0, allowed_by_share: 0, allowed_by_policy: 0, shadow_denied: 0 };

function cluster(nowMs, isPartDown) {
  const slots = ['0-5460', '5461-10922', '10923-16383'];
  return Array.from({ length: 6 }, (_, index) => {
    const isPrimary = index < 3;
    const up = !(isPartDown && index === 1);
    return node(nowMs, {
      addr: `10.0.${index % 3}.${5 + Math.floor(index / 3)}:6379`, role: isPrimary ? 'primary' : 'replica', slots: slots[index % 3], round_trip_us: 170 + 23 * index,
      ...(up ? {} : { up: false, since_ms: nowMs - DOWN_MS, breaker: 'half-open', round_trip_us: null, problem: 'nothing listens there', advice: 'start it, or have its replica take over' }),
      changes: [
        ...(up ? [] : [{ at_ms: nowMs - DOWN_MS, up: false, cause: 'connection refused' }]),
        ...(index === 4 ? [{ at_ms: nowMs - 7_200_000, up: true, cause: null }, { at_ms: nowMs - 7_214_000, up: false, cause: 'connection reset' }] : []),
      ],
    });
  });
}

export const SCRIPT_KEY = '<script>alert(1)</script>';
export const LONG_KEY = '\\x00\\xff'.repeat(512);
const HOSTILE = [
  SCRIPT_KEY, '<img src=x onerror=alert(2)>', 'nul\\x00bell\\a\\"quoted\\"', '\u202egnp.exe\u2066', LONG_KEY, '\u0000\u0007\n', ' ', 'a'.repeat(1024), '\\xe2\\x80\\xaertl', '"> <b>', '%3Cscript%3E', '日本語のキー',
];

/** By name: the state at a time, the sentence on top (a pattern), and what else must be found on the page. */
export const SCENES = {
  up: {
    says: /^All exact\. 1,[0-9]{2}0 checks a second, [0-9.]+\s% denied\.$/,
    shows: ['Not enforced', 'search (shadow)', '100 / 1 s, 5,000 / 1 h', '412 of 10,000', '10.0.0.5:6379', 'Redis takes about 190 µs and Tollgate 120 µs'],
    state: (nowMs) => state(nowMs),
  },
  'no-policies': {
    says: /^All exact\. 1,[0-9]{2}0 checks a second, [0-9.]+\s% denied\.$/,
    shows: ['in the call', 'None. Limits stand in the calls themselves.'],
    hides: ['All policies', 'Not enforced'],
    state(nowMs) {
      const inTheCall = (rows) => keys(rows).map((row) => ({ ...row, policy: null }));
      return state(nowMs, { policies: [], top: { denied: inTheCall(DENIED), allowed: inTheCall(ALLOWED) } });
    },
  },
  degraded: {
    says: /^Redis has been down for 4[0-9]\ss: answers are degraded\.$/,
    shows: ['Redis refuses connections.', 'Start Redis, or have redis.addr lead to one that runs.', 'Local buckets admit 50 % of each limit.', 'open', 'went down: connection refused'],
    state(nowMs) {
      const sinceMs = nowMs - DOWN_MS;
      return state(nowMs, {
        state: { exact: false, since_ms: sinceMs, cause: 'Redis refuses connections', advice: 'start Redis, or have redis.addr lead to one that runs' },
        nodes: [node(nowMs, { up: false, since_ms: sinceMs, breaker: 'open', round_trip_us: null, problem: 'connection refused', changes: [{ at_ms: sinceMs, up: false, cause: 'connection refused' }] })],
        answers: { allowed: 99_728_053, denied: 1_884_058, denied_cached: 500_000, degraded_allowed: 48_204, degraded_denied: 3_790, refused: 0, allowed_by_share: 0, allowed_by_policy: 0, shadow_denied: 0 },
        fallback: { mode: 'local', ratio: 0.5, buckets: 18_204, unwritten: 48_204, dropped: 0 },
        latency: { check: { p50_us: 24, p99_us: 210 }, store: null },
        history: history(nowMs, { isDown: isDownSince(DOWN_MS, nowMs) }),
      });
    },
  },
  'degraded-closed': {
    says: /^Redis has been down for 2\sh 5\smin: answers are degraded\.$/,
    shows: ['Every check is denied.', 'fallback is closed'],
    state(nowMs) {
      const sinceMs = nowMs - 7_500_000;
      return { ...SCENES.degraded.state(nowMs), state: { exact: false, since_ms: sinceMs, cause: 'Redis asks for a password, and none is set', advice: 'set redis.password or redis.password_file, and redis.user unless it is `default`' }, fallback: { mode: 'closed', ratio: 0.5, buckets: 0, unwritten: 0, dropped: 0 }, history: history(nowMs, { isDown: () => true }) };
    },
  },
  recovered: {
    says: /^All exact\. 1,[0-9]{2}0 checks a second, /,
    shows: ['Degraded answers in the last 10 minutes: ', 'Admissions still to be written to Redis: 3,204.', 'came up', 'went down: connection reset'],
    state: (nowMs) => state(nowMs, {
      nodes: [node(nowMs, { since_ms: nowMs - 190_000, changes: [{ at_ms: nowMs - 190_000, up: true, cause: null }, { at_ms: nowMs - 262_000, up: false, cause: 'connection reset' }] })],
      fallback: { mode: 'local', ratio: 0.5, buckets: 204, unwritten: 3204, dropped: 17 },
      history: history(nowMs, { isDown: (second) => second * 1000 > nowMs - 262_000 && second * 1000 < nowMs - 190_000 }),
    }),
  },
  embedded: {
    says: /^All exact, without a Redis\. /,
    shows: ['Embedded: what was admitted is counted in this process’s own memory'],
    hides: ['Redis takes about', 'Local buckets'],
    state: (nowMs) => state(nowMs, { mode: 'embedded', nodes: [], latency: { check: { p50_us: 18, p99_us: 64 }, store: null }, forwarded: 0 }),
  },
  empty: {
    says: /^Ready\. No check has come yet\.$/,
    shows: ['redis-cli -p 6380 RL.CHECK user:42 10 60', 'None since the start.'],
    hides: ['Denied most', 'Latency'],
    state: (nowMs) => state(nowMs, { uptime_s: 12, clients: { connected: 0, max: 10_000, rejected: 0 }, answers: nothing, forwarded: 0, latency: { check: null, store: null }, policies: [], top: { denied: [], allowed: [] }, history: history(nowMs, { load: 0 }, 12), nodes: [node(nowMs, { since_ms: nowMs - 12_000 })] }),
  },
  'off-for-all': {
    says: /^All exact\. /,
    shows: ['Nothing is limited: the mode of all policies is off. RL.POLICY MODE * default ends that.'],
    state: (nowMs) => state(nowMs, { policies_mode: { mode: 'off', until_ms: null }, policies: POLICIES.map((policy) => ({ ...policy, mode: 'off' })) }),
  },
  starting: {
    says: /^All exact\. [0-9]+ checks a second, none denied\.$/,
    shows: ['No key was denied lately.', 'None. Limits stand in the calls themselves'],
    state: (nowMs) => state(nowMs, { uptime_s: 31, answers: { ...nothing, allowed: 640 }, policies: [], top: { denied: [], allowed: keys([['user:42', null, 640, 0]]) }, history: history(nowMs, { load: 21, deniedShare: 0 }, 31) }),
  },
  'many-keys': {
    says: /^All exact\. /,
    shows: ['Show 100 of 10,000'],
    state(nowMs) {
      const many = (most) => Array.from({ length: 10_000 }, (_, index) => ({ key: `user:${(index * 7919) % 1_000_003}`, policy: ['api', 'login', null][index % 3], count: Math.ceil(most / (1 + index / 3)), error: 31 }));
      return state(nowMs, { top: { denied: many(4000), allowed: many(90_000) } });
    },
  },
  cluster: {
    says: /^All exact\. 84,[0-9]00 checks a second, |^All exact\. [0-9]{2},[0-9]00 checks a second, /,
    shows: ['Redis Cluster', '6 of 6 up', '10.0.2.6:6379', 'replica, slots 10923\u201116383', 'Warning', 'It evicts keys when its memory is full.'],
    state(nowMs) {
      const nodes = cluster(nowMs, false);
      Object.assign(nodes[0], { problem: 'it evicts keys when its memory is full', advice: 'set maxmemory-policy to noeviction' });
      return state(nowMs, { mode: 'cluster', nodes, history: history(nowMs, { load: 84_000 }), clients: { connected: 9_412, max: 10_000, rejected: 31 }, failed_logins: 12 });
    },
  },
  'cluster-part': {
    says: /^1 of 3 primaries has been down for 4[0-9]\ss: answers for its keys are degraded\.$/,
    shows: ['5 of 6 up', 'For those keys local buckets admit 50 % of each limit.', 'half-open', 'Nothing listens there. Start it, or have its replica take over.'],
    state: (nowMs) => state(nowMs, {
      mode: 'cluster', nodes: cluster(nowMs, true),
      state: { exact: false, since_ms: nowMs - DOWN_MS, cause: '10.0.1.5:6379: connection refused', advice: 'start it, or have its replica take over' },
      answers: { allowed: 99_728_053, denied: 1_884_058, denied_cached: 500_000, degraded_allowed: 16_204, degraded_denied: 790, refused: 0, allowed_by_share: 0, allowed_by_policy: 0, shadow_denied: 0 },
      history: history(nowMs, { down: (second) => (isDownSince(DOWN_MS, nowMs)(second) ? 0.33 : 0) }),
    }),
  },
  'many-policies': {
    says: /^All exact\. /,
    shows: ['policy-39', 'and 11 more'],
    state: (nowMs) => state(nowMs, { policies: Array.from({ length: 40 }, (_, index) => ({ name: `policy-${index}`, limits: `${10 * (index + 1)} 1s ${1000 * (index + 1)} 1h`, mode: ['enforce', 'shadow', 'enforce', 'off', 'enforce', 'block'][index % 6], allowed: 10_000 * index, denied: 90 * index, near_limit: 700 * index })) }),
  },
  hostile: {
    says: /^Redis has been down for 4[0-9]\ss: answers are degraded\.$/,
    shows: [SCRIPT_KEY, '\\xe2\\x80\\xaegnp.exe\\xe2\\x81\\xa6', '\\x00\\x07\\x0a', '\\x20', '<i>policy</i>', 'A cause with <b>tags</b>, \\x1b[31m and \\xe2\\x80\\xae turned.'],
    state(nowMs) {
      const calm = SCENES.degraded.state(nowMs);
      const rows = keys(HOSTILE.map((key, index) => [key, index % 2 ? '<i>policy</i>' : null, 1000 - index, index]));
      return {
        ...calm,
        state: { ...calm.state, cause: 'a cause with <b>tags</b>, \u001b[31m and \u202e turned', advice: 'x'.repeat(600) },
        nodes: [{ ...calm.nodes[0], addr: `${'very-long-name.'.repeat(12)}svc.cluster.local:6379`, problem: '<script>alert(3)</script>'.repeat(8), advice: 'do'.repeat(200), changes: Array.from({ length: 40 }, (_, index) => ({ at_ms: nowMs - 1000 * index ** 3, up: index % 2 === 1, cause: `cause ${'<b>'.repeat(30)}` })) }],
        policies: [{ ...POLICIES[0], name: `<i>policy</i>${'p'.repeat(64)}`, limits: '9 1s '.repeat(40) }, ...POLICIES],
        top: { denied: rows, allowed: rows.map((row) => ({ ...row, count: 2 ** 53 - 1, error: 2 ** 40 })) },
        answers: { allowed: 2 ** 53 - 1, denied: 2 ** 53 - 1, denied_cached: 0, degraded_allowed: 2 ** 53 - 1, degraded_denied: 1, refused: 2 ** 53 - 1 },
        forwarded: 2 ** 53 - 1,
      };
    },
  },
};

/** The answer to a look-up: status and body. */
export function lookUp(key, nowMs, scene) {
  if (scene.startsWith('degraded')) return [503, { error: 'Redis cannot be reached' }];
  if (key === 'nobody') return [404, { error: 'no state' }];
  const times = (count, windowMs) => Array.from({ length: count }, (_, index) => [nowMs - windowMs * (1 - (index + noise(index)) / count) ** 2, 1 + Math.floor(3 * noise(index + 0.1) ** 4)]);
  const limit = (policy, algorithm, most, windowMs, used, entries) => ({
    policy, algorithm, limit: most, window_ms: windowMs, used, entry_count: entries.length, oldest_ms: entries[0]?.[0] ?? 0, newest_ms: entries.at(-1)?.[0] ?? 0, next_ms: used ? Math.round(windowMs / 31) : 0, free_ms: used ? Math.round(windowMs * 0.8) : 0, entries,
  });
  return [200, {
    key, override: key === 'user:42' ? '1000 1s' : null, penalty: null, leases: [],
    limits: [limit('api', 'log', 100, 1000, 37, times(37, 1000)), limit('api', 'log', 5000, 3_600_000, 5000, times(900, 3_600_000)), limit(null, 'log', null, 60_000, 12, times(12, 60_000)), limit('login', 'log', 5, 60_000, 0, [])],
  }];
}
