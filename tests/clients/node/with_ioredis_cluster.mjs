// ioredis' class for clusters, pointed at a Tollgate before one: it takes Tollgate for the one node of all slots.

import assert from "node:assert/strict";
import Redis from "ioredis";
import { assertAllowed, assertDenied, fresh, PORT, run } from "./harness.mjs";

// What a user of ioredis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { protocol: 2 }, RESP3: { protocol: 3 } };
// Enough that each of three nodes would have some.
const KEYS = 50;

async function withCluster(redisOptions, options, test) {
  const cluster = new Redis.Cluster([{ host: "127.0.0.1", port: PORT }], { redisOptions, ...options });
  const lost = [];
  cluster.on("error", (error) => lost.push(error));
  cluster.on("node error", (error) => lost.push(error));
  try {
    await test(cluster);
    assert.deepEqual(lost, []);
  } finally {
    cluster.disconnect();
  }
}

function freshKeys(name) {
  return Array.from({ length: KEYS }, () => fresh(name));
}

async function findsOneNode(cluster) {
  assert.equal(await cluster.ping(), "PONG");
  assert.deepEqual(cluster.nodes("master").map(({ options }) => options.port), [PORT]);
  assert.match(await cluster.cluster("INFO"), /^cluster_state:ok\r\n/);
}

async function countsDown(cluster) {
  const keys = freshKeys("countsDown");
  for (let remaining = 3; remaining >= 0; remaining--) {
    const replies = await Promise.all(keys.map((key) => cluster.call("RL.CHECK", key, 4, "1h")));
    replies.forEach((reply) => assertAllowed(reply, 4, remaining));
  }
  assertDenied(await cluster.call("RL.CHECK", keys[0], 4, "1h"), 4);
}

async function pipelined(cluster) {
  const keys = freshKeys("pipelined");
  const pipeline = cluster.pipeline();
  keys.forEach((key) => pipeline.call("RL.CHECK", key, 4, "1h").call("RL.PEEK", key, 4, "1h"));
  const replies = await pipeline.exec();
  assert.equal(replies.length, 2 * KEYS);
  replies.forEach(([error, reply], at) => {
    assert.equal(error, null);
    assertAllowed(reply, 4, at % 2 === 0 ? 3 : 2);
  });
}

async function resetForgets(cluster) {
  const key = fresh("resetForgets");
  await cluster.call("RL.CHECK", key, 2, "1h");
  assert.equal(await cluster.call("RL.RESET", key), 1);
  assertAllowed(await cluster.call("RL.CHECK", key, 2, "1h"), 2, 1);
}

async function errorsAreTheCommandsOwn(cluster) {
  await assert.rejects(cluster.call("RL.CHECK", "key", "0", "60"), /limit must be an integer/);
  await assert.rejects(cluster.get("key"), /send 'get' to the cluster/);
}

const TESTS = [findsOneNode, countsDown, pipelined, resetForgets, errorsAreTheCommandsOwn];

const tests = [];
for (const [protocol, redisOptions] of Object.entries(PROTOCOLS)) {
  const add = (name, options, test) => tests.push([`${name}, ${protocol}`, () => withCluster(redisOptions, options, test)]);
  TESTS.forEach((test) => add(test.name, {}, test));
  add("countsDown with auto-pipelining", { enableAutoPipelining: true }, countsDown);
}
await run(tests);
