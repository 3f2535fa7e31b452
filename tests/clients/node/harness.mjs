// What the Node scripts share: where Tollgate is, what its store lets it promise, and results as TAP.

import assert from "node:assert/strict";
import { basename } from "node:path";

export const PORT = Number(process.env.TOLLGATE_PORT);
// embedded, redis, down, flapping; or direct: no Tollgate, but Redis itself.
export const STORE = process.env.TOLLGATE_STORE;
export const DEGRADED = STORE === "down" ? 1 : 0;
const HOUR_MS = 3_600_000;

// No wait of a client may come near this: the deadline for Redis is 50 ms, the rest is for a busy machine.
const LONGEST_WAIT_MS = 1000;
const FLAPS = 4;
const FLAP_MS = 30_000;
// A promise that never settles would otherwise end the script without a word of which test it was.
const TEST_MS = 35_000;

let keys = 0;

// A key that no other test uses, nor another script on the same server.
export function fresh(name) {
  return `${basename(process.argv[1])}:${process.pid}:${keys++}:${name}`;
}

// How many of `limit` a new key is granted: the fallback's buckets hold half, by default.
export function admits(limit) {
  return DEGRADED ? Math.floor(limit / 2) : limit;
}

export function assertAllowed(reply, limit, remaining, windowMs = HOUR_MS) {
  const [resetAfterMs, degraded, ...rest] = reply.slice(4);
  assert.deepEqual(reply.slice(0, 4), [1, limit, remaining, 0]);
  assert(0 < resetAfterMs && resetAfterMs <= windowMs, `reset_after_ms is ${resetAfterMs}`);
  assert.deepEqual([degraded, ...rest], [DEGRADED]);
}

export function assertDenied(reply, limit, windowMs = HOUR_MS) {
  const [retryAfterMs, resetAfterMs, degraded, ...rest] = reply.slice(3);
  assert.deepEqual(reply.slice(0, 3), [0, limit, 0]);
  assert(0 < retryAfterMs && retryAfterMs <= resetAfterMs && resetAfterMs <= windowMs, `got ${reply}`);
  assert.deepEqual([degraded, ...rest], [DEGRADED]);
}

// Malformed commands, and what their errors must say.
export const MALFORMED = [
  [["RL.CHECK"], "wrong number of arguments for 'rl.check' command"],
  [["RL.CHECK", "key", "0", "60"], "limit must be an integer between 1 and 1000000000"],
  [["RL.CHECK", "key", "10", "1y"], "window must be "],
  [["RL.CHECK", "key", "10", "60", "FOO", "1"], "unknown option 'FOO' for 'rl.check'"],
];

// `check` asks until Redis has been seen to come and go some times; each answer must come, and come at once.
export async function whileRedisFlaps(check) {
  const seen = [];
  const deadline = Date.now() + FLAP_MS;
  while (seen.length <= FLAPS) {
    const asked = Date.now();
    const reply = await check();
    assert(Date.now() - asked < LONGEST_WAIT_MS, `waited ${Date.now() - asked} ms`);
    assert.equal(reply.length, 6);
    assert.equal(reply[0], 1);
    if (seen.at(-1) !== reply[5]) seen.push(reply[5]);
    assert(Date.now() < deadline, `degraded was only ${seen}`);
  }
}

// Calls `condition` until it holds.
export async function waitUntil(condition, what) {
  const deadline = Date.now() + 5000;
  while (!(await condition())) {
    assert(Date.now() < deadline, `waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function tooLong() {
  return new Promise((_, reject) => setTimeout(() => reject(new Error(`not done in ${TEST_MS} ms`)), TEST_MS));
}

// Runs the [name, function] pairs, and exits.
export async function run(tests) {
  console.log(`1..${tests.length}`);
  let failed = 0;
  for (const [index, [name, test]] of tests.entries()) {
    try {
      await Promise.race([test(), tooLong()]);
      console.log(`ok ${index + 1} - ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`not ok ${index + 1} - ${name}`);
      console.log(String(error.stack).replace(/^/gm, "# "));
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}
