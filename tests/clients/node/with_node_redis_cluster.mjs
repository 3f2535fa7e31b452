// node-redis' class for clusters, pointed at a Tollgate before one: it takes Tollgate for the one node of all slots.

import assert from "node:assert/strict";
import { createCluster } from "redis";
import { assertAllowed, assertDenied, fresh, PORT, run } from "./harness.mjs";

// What a user of node-redis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { RESP: 2 }, RESP3: { RESP: 3 } };
// Enough that each of three nodes would have some.
const KEYS = 50;

async function withCluster(options, test) {
  const cluster = createCluster({ rootNodes: [{ socket: { host: "127.0.0.1", port: PORT } }], ...options });
  const lost = [];
  cluster.on("error", (error) => lost.push(error));
  await cluster.connect();
  try {
    await test(cluster);
    assert.deepEqual(lost, []);
  } finally {
    cluster.destroy();
  }
}

function send(cluster, name, key, ...args) {
  return cluster.sendCommand(key, false, [name, key, ...args]);
}

async function findsOneNode(cluster) {
  assert.deepEqual(cluster.masters.map(({ address }) => address), [`127.0.0.1:${PORT}`]);
}

async function countsDown(cluster) {
  const keys = Array.from({ length: KEYS }, () => fresh("countsDown"));
  for (let remaining = 3; remaining >= 0; remaining--) {
    const replies = await Promise.all(keys.map((key) => send(cluster, "RL.CHECK", key, "4", "1h")));
    replies.forEach((reply) => assertAllowed(reply, 4, remaining));
  }
  assertDenied(await send(cluster, "RL.CHECK", keys[0], "4", "1h"), 4);
}

async function resetForgets(cluster) {
  const key = fresh("resetForgets");
  await send(cluster, "RL.CHECK", key, "2", "1h");
  assert.equal(await send(cluster, "RL.RESET", key), 1);
  assertAllowed(await send(cluster, "RL.CHECK", key, "2", "1h"), 2, 1);
}

async function errorsAreTheCommandsOwn(cluster) {
  await assert.rejects(send(cluster, "RL.CHECK", "key", "0", "60"), /limit must be an integer/);
  await assert.rejects(cluster.get("key"), /send 'GET' to the cluster/);
}

const TESTS = [findsOneNode, countsDown, resetForgets, errorsAreTheCommandsOwn];
await run(
  Object.entries(PROTOCOLS).flatMap(([protocol, options]) =>
    TESTS.map((test) => [`${test.name}, ${protocol}`, () => withCluster(options, test)]),
  ),
);
