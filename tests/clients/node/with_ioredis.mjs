// ioredis: RL commands by `call`, as commands of its own, in its pipelines and auto-pipelining, from twenty clients.

import assert from "node:assert/strict";
import Redis from "ioredis";
import {
  admits, assertAllowed, assertDenied, DEGRADED, fresh, MALFORMED, PORT, run, STORE, whileRedisFlaps,
} from "./harness.mjs";

const CONNECTIONS = 20;
// What a user of ioredis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { protocol: 2 }, RESP3: { protocol: 3 } };

// A client for one test. A connection that is lost fails the test, where ioredis would hide it.
async function withClient(options, test) {
  const client = new Redis({ port: PORT, retryStrategy: null, maxRetriesPerRequest: 0, ...options });
  const lost = [];
  client.on("error", (error) => lost.push(error));
  client.on("close", () => lost.push(new Error("the connection was closed")));
  try {
    await test(client);
    assert.deepEqual(lost, []);
  } finally {
    client.disconnect();
  }
}

async function connects(client) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.echo("hello"), "hello");
  await client.client("SETNAME", "tester");
  assert.equal(await client.client("GETNAME"), "tester");
}

async function countsDown(client) {
  const key = fresh("countsDown");
  for (let remaining = admits(4) - 1; remaining >= 0; remaining--) {
    assertAllowed(await client.call("RL.CHECK", key, 4, "1h"), 4, remaining);
  }
  assertDenied(await client.call("RL.CHECK", key, 4, "1h"), 4);
}

async function severalWindowsAndCost(client) {
  const key = fresh("severalWindowsAndCost");
  const reply = await client.call("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 3);
  assertAllowed(reply, 10, admits(10) - 3, 60_000);
  const [allowed, , , retryAfterMs] = await client.call("RL.CHECK", key, 100, "1h", 10, "1m", "COST", 11);
  assert.deepEqual([allowed, retryAfterMs], [0, -1]);
}

async function peekCountsNothing(client) {
  const key = fresh("peekCountsNothing");
  for (let turn = 0; turn < 3; turn++) {
    assertAllowed(await client.call("RL.PEEK", key, 4, "1h"), 4, admits(4) - 1);
  }
}

async function resetForgets(client) {
  const key = fresh("resetForgets");
  await client.call("RL.CHECK", key, 2, "1h");
  assert.equal(await client.call("RL.RESET", key, fresh("unknown")), 1);
  assertAllowed(await client.call("RL.CHECK", key, 2, "1h"), 2, 1);
}

// ioredis can be taught commands, which then work as any of its own does.
async function asItsOwnCommand(client) {
  const own = client.createBuiltinCommand("RL.CHECK");
  assertAllowed(await own.string.call(client, fresh("asItsOwnCommand"), 4, "1h"), 4, admits(4) - 1);
}

async function mixedPipeline(client) {
  const key = fresh("mixedPipeline");
  const pipeline = client.pipeline();
  for (let number = 0; number < 20; number++) {
    pipeline.call("RL.CHECK", key, 1000, "1h");
    pipeline.echo(`echo ${number}`);
    pipeline.call("RL.CHECK", key, "many", "1h");
    pipeline.ping();
    pipeline.call("RL.PEEK", key, 1000, "1h");
  }
  const replies = await pipeline.exec();
  assert.equal(replies.length, 100);
  for (let number = 0; number < 20; number++) {
    const [check, echo, malformed, pong, peek] = replies.slice(5 * number, 5 * number + 5);
    assertAllowed(check[1], 1000, admits(1000) - number - 1);
    assert.deepEqual(echo, [null, `echo ${number}`]);
    assert.match(malformed[0].message, /^ERR limit must be an integer/);
    assert.deepEqual(pong, [null, "PONG"]);
    assertAllowed(peek[1], 1000, admits(1000) - number - 2);
  }
}

async function keysAreBytes(client) {
  const stem = Buffer.from(fresh("keysAreBytes"));
  const tails = ["\x00", "\x01", "\r\n", "{}", "}{", "\xff\xfe", " '\"", "x".repeat(900)];
  for (let remaining = admits(4) - 1; remaining >= 0; remaining--) {
    for (const tail of tails) {
      const key = Buffer.concat([stem, Buffer.from(tail, "latin1")]);
      assertAllowed(await client.call("RL.CHECK", key, 4, "1h"), 4, remaining);
    }
  }
}

async function errorsLeaveTheConnection(client) {
  for (const [command, text] of MALFORMED) {
    const isExpected = (error) => error.name === "ReplyError" && error.message.includes(text);
    await assert.rejects(client.call(...command), isExpected);
  }
  assert.equal(await client.ping(), "PONG");
}

async function twentyShareALimit(options) {
  const key = fresh("twentyShareALimit");
  const clients = Array.from({ length: CONNECTIONS }, () => new Redis({ port: PORT, ...options }));
  const calls = clients.flatMap((client) => Array.from({ length: 10 }, () => client.call("RL.CHECK", key, 100, "1h")));
  const replies = await Promise.all(calls);
  clients.forEach((client) => client.disconnect());
  assert.equal(replies.filter((reply) => reply[0] === 1).length, admits(100));
}

const TESTS = [
  connects, countsDown, severalWindowsAndCost, peekCountsNothing, asItsOwnCommand, mixedPipeline, keysAreBytes,
  errorsLeaveTheConnection,
];
// While Redis is down there is nothing that could be reset.
if (!DEGRADED) TESTS.push(resetForgets);

const tests = [];
for (const [protocol, options] of Object.entries(PROTOCOLS)) {
  const add = (name, options, test) => tests.push([`${name}, ${protocol}`, () => withClient(options, test)]);
  if (STORE === "flapping") {
    const key = fresh("flapping");
    const check = (client) => whileRedisFlaps(() => client.call("RL.CHECK", key, 1_000_000_000, "1h"));
    add("whileRedisFlaps", options, check);
    continue;
  }
  TESTS.forEach((test) => add(test.name, options, test));
  add("mixedPipeline with auto-pipelining", { enableAutoPipelining: true, ...options }, mixedPipeline);
  tests.push([`twentyShareALimit, ${protocol}`, () => twentyShareALimit(options)]);
}
await run(tests);
