// node-redis: RL commands by `sendCommand`, in its pipelines and its implicit pipelining, from its pool.

import assert from "node:assert/strict";
import { createClient, createClientPool, ErrorReply, RESP_TYPES } from "redis";
import {
  admits, assertAllowed, assertDenied, DEGRADED, fresh, MALFORMED, PORT, run, STORE, whileRedisFlaps,
} from "./harness.mjs";

const CONNECTIONS = 20;
// What a user of node-redis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { RESP: 2 }, RESP3: { RESP: 3 } };

// A client for one test. A connection that is lost fails the test, where node-redis would hide it.
async function withClient(options, test) {
  const client = createClient({ socket: { port: PORT, reconnectStrategy: false }, ...options });
  const lost = [];
  client.on("error", (error) => lost.push(error));
  await client.connect();
  try {
    await test(client);
    assert.deepEqual(lost, []);
  } finally {
    client.destroy();
  }
}

// Its commands take strings and bytes only.
function rl(name, ...args) {
  return [name, ...args.map((arg) => (Buffer.isBuffer(arg) ? arg : String(arg)))];
}

async function connects(client) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.echo("hello"), "hello");
  await client.clientSetName("tester");
  assert.equal(await client.clientGetName(), "tester");
  assert((await client.clientId()) > 0);
}

async function countsDown(client) {
  const key = fresh("countsDown");
  for (let remaining = admits(4) - 1; remaining >= 0; remaining--) {
    assertAllowed(await client.sendCommand(rl("RL.CHECK", key, 4, "1h")), 4, remaining);
  }
  assertDenied(await client.sendCommand(rl("RL.CHECK", key, 4, "1h")), 4);
}

async function severalWindowsAndCost(client) {
  const key = fresh("severalWindowsAndCost");
  const reply = await client.sendCommand(rl("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 3));
  assertAllowed(reply, 10, admits(10) - 3, 60_000);
  const costly = rl("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 11);
  const [allowed, , , retryAfterMs] = await client.sendCommand(costly);
  assert.deepEqual([allowed, retryAfterMs], [0, -1]);
}

async function peekCountsNothing(client) {
  const key = fresh("peekCountsNothing");
  for (let turn = 0; turn < 3; turn++) {
    assertAllowed(await client.sendCommand(rl("RL.PEEK", key, 4, "1h")), 4, admits(4) - 1);
  }
}

async function resetForgets(client) {
  const key = fresh("resetForgets");
  await client.sendCommand(rl("RL.CHECK", key, 2, "1h"));
  assert.equal(await client.sendCommand(rl("RL.RESET", key, fresh("unknown"))), 1);
  assertAllowed(await client.sendCommand(rl("RL.CHECK", key, 2, "1h")), 2, 1);
}

async function mixedPipeline(client) {
  const key = fresh("mixedPipeline");
  const pipeline = client.multi();
  for (let number = 0; number < 20; number++) {
    pipeline.addCommand(rl("RL.CHECK", key, 1000, "1h"));
    pipeline.echo(`echo ${number}`);
    pipeline.ping();
    pipeline.addCommand(rl("RL.PEEK", key, 1000, "1h"));
    pipeline.echo("end");
  }
  const replies = await pipeline.execAsPipeline();
  assert.equal(replies.length, 100);
  for (let number = 0; number < 20; number++) {
    const [check, echo, pong, peek, end] = replies.slice(5 * number, 5 * number + 5);
    assertAllowed(check, 1000, admits(1000) - number - 1);
    assert.deepEqual([echo, pong, end], [`echo ${number}`, "PONG", "end"]);
    assertAllowed(peek, 1000, admits(1000) - number - 2);
  }
}

// Calls that are not awaited share a write, and each settles with its own reply or error.
async function implicitPipeline(client) {
  const key = fresh("implicitPipeline");
  const calls = [];
  for (let number = 0; number < 25; number++) {
    calls.push(client.sendCommand(rl("RL.CHECK", key, 1000, "1h")), client.echo(`echo ${number}`));
    calls.push(client.sendCommand(rl("RL.CHECK", key, "many", "1h")), client.ping());
  }
  const settled = await Promise.allSettled(calls);
  for (let number = 0; number < 25; number++) {
    const [check, echo, malformed, pong] = settled.slice(4 * number, 4 * number + 4);
    assertAllowed(check.value, 1000, admits(1000) - number - 1);
    assert.deepEqual([echo.value, pong.value], [`echo ${number}`, "PONG"]);
    assert(malformed.reason instanceof ErrorReply);
    assert.match(malformed.reason.message, /^ERR limit must be an integer/);
  }
}

async function keysAreBytes(client) {
  const stem = Buffer.from(fresh("keysAreBytes"));
  const tails = ["\x00", "\x01", "\r\n", "{}", "}{", "\xff\xfe", " '\"", "x".repeat(900)];
  for (let remaining = admits(4) - 1; remaining >= 0; remaining--) {
    for (const tail of tails) {
      const key = Buffer.concat([stem, Buffer.from(tail, "latin1")]);
      assertAllowed(await client.sendCommand(rl("RL.CHECK", key, 4, "1h")), 4, remaining);
    }
  }
  const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.deepEqual(await bytes.echo(Buffer.from([0, 255])), Buffer.from([0, 255]));
}

async function errorsLeaveTheConnection(client) {
  for (const [command, text] of MALFORMED) {
    const isExpected = (error) => error instanceof ErrorReply && error.message.includes(text);
    await assert.rejects(client.sendCommand(command), isExpected);
  }
  assert.equal(await client.ping(), "PONG");
}

async function aPoolSharesALimit(options) {
  const key = fresh("aPoolSharesALimit");
  const poolOptions = { minimum: CONNECTIONS, maximum: CONNECTIONS };
  const pool = await createClientPool({ socket: { port: PORT }, ...options }, poolOptions).connect();
  const calls = Array.from({ length: 200 }, () => pool.sendCommand(rl("RL.CHECK", key, 100, "1h")));
  const replies = await Promise.all(calls);
  assert.equal(pool.totalClients, CONNECTIONS);
  pool.destroy();
  assert.equal(replies.filter((reply) => reply[0] === 1).length, admits(100));
}

const TESTS = [
  connects, countsDown, severalWindowsAndCost, peekCountsNothing, mixedPipeline, implicitPipeline, keysAreBytes,
  errorsLeaveTheConnection,
];
// While Redis is down there is nothing that could be reset.
if (!DEGRADED) TESTS.push(resetForgets);

const tests = [];
for (const [protocol, options] of Object.entries(PROTOCOLS)) {
  const add = (name, test) => tests.push([`${name}, ${protocol}`, () => withClient(options, test)]);
  if (STORE === "flapping") {
    const check = rl("RL.CHECK", fresh("flapping"), 1_000_000_000, "1h");
    add("whileRedisFlaps", (client) => whileRedisFlaps(() => client.sendCommand(check)));
    continue;
  }
  TESTS.forEach((test) => add(test.name, test));
  tests.push([`aPoolSharesALimit, ${protocol}`, () => aPoolSharesALimit(options)]);
}
await run(tests);
