// node-redis as an app uses it: all that is Redis's own must mean the same through Tollgate as straight to Redis.

import assert from "node:assert/strict";
import { BasicClientSideCache, createClient, createClientPool, defineScript, WatchError } from "redis";
import { assertAllowed, fresh, PORT, run, STORE, waitUntil } from "./harness.mjs";

const WAIT_SECONDS = 10;
// What a user of node-redis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { RESP: 2 }, RESP3: { RESP: 3 } };

const ADD_TO = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
  parseCommand(parser, key, number) {
    parser.pushKey(key);
    parser.push(String(number));
  },
  transformReply: (reply) => reply,
});

// Gives the test a way to make clients, which end with it. A connection that is lost fails the test.
async function withClients(options, test) {
  const clients = [];
  const lost = [];
  const connect = async (more) => {
    const client = createClient({ socket: { port: PORT, reconnectStrategy: false }, ...options, ...more });
    client.on("error", (error) => lost.push(error));
    clients.push(client);
    return client.connect();
  };
  try {
    await test(connect, options);
    assert.deepEqual(lost, []);
  } finally {
    clients.filter((client) => client.isOpen).forEach((client) => client.destroy());
  }
}

async function dataTypes(connect) {
  const client = await connect();
  const key = fresh("dataTypes");
  assert.equal(await client.set(key, "value", { expiration: { type: "PX", value: 60_000 } }), "OK");
  assert.equal(await client.get(key), "value");
  assert.equal(await client.get(fresh("none")), null);
  assert.equal(await client.hSet(`${key}h`, { a: 1, b: 2 }), 2);
  assert.deepEqual({ ...(await client.hGetAll(`${key}h`)) }, { a: "1", b: "2" });
  assert.equal(await client.zAdd(`${key}z`, [{ score: 1.5, value: "a" }, { score: 2, value: "b" }]), 2);
  assert.equal(await client.zScore(`${key}z`, "a"), 1.5);
  assert.deepEqual(new Set(await client.sMembers(`${key}s`)), new Set());
  await client.xAdd(`${key}x`, "*", { field: "value" });
  assert.equal((await client.xRange(`${key}x`, "-", "+"))[0].message.field, "value");
  const text = "0123456789".repeat(500_000);
  await client.set(key, text);
  assert.equal(await client.get(key), text);
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: `${key}*`, COUNT: 2 })) keys.forEach((name) => found.add(name));
  assert.equal(found.size, 4);
}

async function errors(connect) {
  const client = await connect();
  const key = fresh("errors");
  await client.set(key, "text");
  await assert.rejects(client.incr(key), /ERR value is not an integer/);
  await assert.rejects(client.lPush(key, "x"), /WRONGTYPE/);
  await assert.rejects(client.sendCommand(["NO.SUCH", "a"]), /ERR unknown command 'NO.SUCH', with args beginning/);
  assert.equal(await client.get(key), "text");
}

async function pipelines(connect) {
  const client = await connect();
  const key = fresh("pipelines");
  const calls = Array.from({ length: 500 }, (_, number) => [client.incr(key), client.echo(String(number))]).flat();
  const expected = Array.from({ length: 500 }, (_, number) => [number + 1, String(number)]).flat();
  assert.deepEqual(await Promise.all(calls), expected);
  assert.deepEqual(await client.multi().set(key, 1).get(key).execAsPipeline(), ["OK", "1"]);
}

async function transactions(connect) {
  const client = await connect();
  const key = fresh("transactions");
  assert.deepEqual(await client.multi().set(key, 1).incr(key).get(key).exec(), ["OK", 2, "2"]);
  await client.watch(key);
  await (await connect()).set(key, "other");
  await assert.rejects(client.multi().set(key, "mine").exec(), WatchError);
  await client.watch(key);
  assert.deepEqual(await client.multi().set(key, "mine").exec(), ["OK"]);
  await assert.rejects(client.multi().set(key, 9).addCommand(["GET"]).exec());
  assert.equal(await client.get(key), "mine");
}

async function poolTransactions(_, options) {
  const pool = await createClientPool({ socket: { port: PORT }, ...options }, { maximum: 4 }).connect();
  const key = fresh("poolTransactions");
  const add = async (client) => {
    await client.watch(key);
    const count = Number(await client.get(key));
    return client.multi().set(key, count + 1).exec();
  };
  const addAtLast = async () => {
    for (;;) {
      try {
        return await pool.execute(add);
      } catch (error) {
        assert(error instanceof WatchError, error);
      }
    }
  };
  await Promise.all(Array.from({ length: 20 }, addAtLast));
  assert.equal(await pool.get(key), "20");
  pool.destroy();
}

async function publishes(connect) {
  const client = await connect();
  const subscriber = await connect();
  const channel = fresh("publishes");
  const messages = [];
  const keep = (message, from) => messages.push([from, message]);
  await subscriber.subscribe(channel, keep);
  await subscriber.pSubscribe(`${channel}:*`, keep);
  await subscriber.sSubscribe(`${channel}:shard`, keep);
  assert.equal(await client.publish(channel, "one"), 1);
  assert.equal(await client.publish(`${channel}:2`, "two"), 1);
  assert.equal(await client.sPublish(`${channel}:shard`, "three"), 1);
  await waitUntil(() => messages.length === 3, "three messages");
  const expected = [[channel, "one"], [`${channel}:2`, "two"], [`${channel}:shard`, "three"]];
  assert.deepEqual(messages, expected);
  await subscriber.unsubscribe();
  await subscriber.pUnsubscribe();
  await subscriber.sUnsubscribe();
  assert.equal(await client.publish(channel, "nobody"), 0);
  assert.equal(await subscriber.incr(channel), 1);
}

async function blockingPops(connect) {
  const client = await connect();
  const key = fresh("blockingPops");
  assert.equal(await client.blPop(key, 0.05), null);
  const popped = (await connect()).blPop(key, WAIT_SECONDS);
  const read = (await connect()).xRead({ key: `${key}x`, id: "$" }, { BLOCK: WAIT_SECONDS * 1000 });
  const blocked = async () => (await client.info("clients")).includes("blocked_clients:2\r\n");
  await waitUntil(blocked, "both to block");
  await client.rPush(key, ["a", "b"]);
  await client.xAdd(`${key}x`, "*", { field: "value" });
  assert.deepEqual({ ...(await popped) }, { key, element: "a" });
  assert.equal(Object.keys(await read).length, 1);
  assert.deepEqual(await client.lRange(key, 0, -1), ["b"]);
}

async function scripts(connect) {
  const client = await connect({ scripts: { addTo: ADD_TO } });
  const key = fresh("scripts");
  await client.scriptFlush();
  assert.equal(await client.addTo(key, 5), 5);
  assert.deepEqual(await client.multi().addTo(key, 5).get(key).exec(), [10, "10"]);
  await client.scriptFlush();
  assert.equal(await client.addTo(key, 5), 15);
}

async function handshakes(connect) {
  const client = await connect({ database: 3, name: "tester" });
  const key = fresh("handshakes");
  await client.set(key, "three");
  assert.equal(await (await connect()).get(key), null);
  const info = await client.clientInfo();
  assert.deepEqual([info.name, info.db, info.id], ["tester", 3, await client.clientId()]);
  await client.select(0);
  assert.equal(await client.get(key), null);
}

// node-redis keeps what it has read until a push says that it was changed.
async function clientSideCaching(connect) {
  const cache = new BasicClientSideCache();
  const client = await connect({ RESP: 3, clientSideCache: cache });
  const other = await connect();
  const key = fresh("clientSideCaching");
  await other.set(key, "old");
  assert.equal(await client.get(key), "old");
  assert.equal(await client.get(key), "old");
  assert.equal(cache.stats().hitCount, 1);
  await other.set(key, "new");
  await waitUntil(async () => (await client.get(key)) === "new", "the invalidation");
}

async function limitsAmongThem(connect, options) {
  const client = await connect();
  const key = fresh("limitsAmongThem");
  const calls = Array.from({ length: 50 }, () => [
    client.sendCommand(["RL.CHECK", key, "100", "1h"]),
    client.incr(`${key}n`),
  ]);
  const replies = await Promise.all(calls.flat());
  for (let number = 0; number < 50; number++) {
    assertAllowed(replies[2 * number], 100, 99 - number);
    assert.equal(replies[2 * number + 1], number + 1);
  }
  const check = ["RL.CHECK", key, "100", "1h"];
  assertAllowed((await client.multi().addCommand(check).addCommand(check).exec())[1], 100, 48);
  await assert.rejects(client.multi().addCommand(check).incr(`${key}n`).exec());
  assert.equal(await client.echo("still here"), "still here");
  if (options.RESP === 3) {
    // A subscribed connection of RESP3 takes all commands, and messages come between their replies.
    const messages = [];
    await client.subscribe(key, (message) => messages.push(message));
    await (await connect()).publish(key, "message");
    assertAllowed(await client.sendCommand(check), 100, 47);
    await waitUntil(() => messages.length === 1, "the message");
  }
}

const TESTS = [
  dataTypes, errors, pipelines, transactions, poolTransactions, publishes, blockingPops, scripts, handshakes,
];
if (STORE !== "direct") TESTS.push(limitsAmongThem);

const tests = Object.entries(PROTOCOLS).flatMap(([protocol, options]) =>
  TESTS.map((test) => [`${test.name}, ${protocol}`, () => withClients(options, test)]),
);
tests.push(["clientSideCaching, RESP3", () => withClients({}, clientSideCaching)]);
await run(tests);
