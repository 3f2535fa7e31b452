// ioredis as an app uses it: all that is Redis's own must mean the same through Tollgate as straight to Redis.

import assert from "node:assert/strict";
import Redis from "ioredis";
import { assertAllowed, fresh, PORT, run, STORE, waitUntil } from "./harness.mjs";

const WAIT_SECONDS = 10;
// What a user of ioredis may set; without a protocol, versions differ in which they speak.
const PROTOCOLS = { default: {}, RESP2: { protocol: 2 }, RESP3: { protocol: 3 } };

// Gives the test a way to make clients, which end with it. A connection that is lost fails the test.
async function withClients(options, test) {
  const clients = [];
  const lost = [];
  const connect = (more) => {
    const client = new Redis({ port: PORT, retryStrategy: null, maxRetriesPerRequest: 0, ...options, ...more });
    client.on("error", (error) => lost.push(error));
    clients.push(client);
    return client;
  };
  try {
    await test(connect);
    assert.deepEqual(lost, []);
  } finally {
    clients.forEach((client) => client.disconnect());
  }
}

async function dataTypes(connect) {
  const client = connect();
  const key = fresh("dataTypes");
  assert.equal(await client.set(key, "value", "PX", 60_000), "OK");
  assert.equal(await client.get(key), "value");
  assert.equal(await client.get(fresh("none")), null);
  assert.equal(await client.hset(`${key}h`, { a: 1, b: 2 }), 2);
  assert.deepEqual({ ...(await client.hgetall(`${key}h`)) }, { a: "1", b: "2" });
  assert.equal(await client.zadd(`${key}z`, 1.5, "a", 2, "b"), 2);
  assert.equal(Number(await client.zscore(`${key}z`, "a")), 1.5);
  const id = await client.xadd(`${key}x`, "*", "field", "value");
  assert.deepEqual(await client.xrange(`${key}x`, "-", "+"), [[id, ["field", "value"]]]);
  const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, index) => index % 256));
  await client.set(key, bytes);
  assert.deepEqual(await client.getBuffer(key), bytes);
  const found = [];
  for await (const keys of client.scanStream({ match: `${key}*`, count: 2 })) found.push(...keys);
  assert.equal(new Set(found).size, 4);
}

async function errors(connect) {
  const client = connect();
  const key = fresh("errors");
  await client.set(key, "text");
  await assert.rejects(client.incr(key), /ERR value is not an integer/);
  await assert.rejects(client.lpush(key, "x"), /WRONGTYPE/);
  await assert.rejects(client.call("NO.SUCH", "a"), /ERR unknown command 'NO.SUCH', with args beginning with: 'a'/);
  assert.equal(await client.get(key), "text");
}

async function pipelines(connect) {
  const key = fresh("pipelines");
  const pipeline = connect().pipeline();
  for (let number = 0; number < 500; number++) pipeline.incr(key).echo(number);
  const replies = await pipeline.exec();
  const expected = Array.from({ length: 500 }, (_, number) => [[null, number + 1], [null, String(number)]]).flat();
  assert.deepEqual(replies, expected);
}

async function autoPipelining(connect) {
  const client = connect({ enableAutoPipelining: true });
  const key = fresh("autoPipelining");
  const counts = await Promise.all(Array.from({ length: 200 }, () => client.incr(key)));
  assert.deepEqual(counts, Array.from({ length: 200 }, (_, index) => index + 1));
}

async function transactions(connect) {
  const client = connect();
  const key = fresh("transactions");
  assert.deepEqual(await client.multi().set(key, 1).incr(key).get(key).exec(), [[null, "OK"], [null, 2], [null, "2"]]);
  await client.watch(key);
  await connect().set(key, "other");
  assert.equal(await client.multi().set(key, "mine").exec(), null);
  await client.watch(key);
  assert.deepEqual(await client.multi().set(key, "mine").exec(), [[null, "OK"]]);
  await assert.rejects(client.multi().set(key, 9).call("GET").exec(), /EXECABORT/);
  assert.equal(await client.get(key), "mine");
}

async function publishes(connect) {
  const client = connect();
  const subscriber = connect();
  const channel = fresh("publishes");
  const messages = [];
  subscriber.on("message", (...message) => messages.push(message));
  subscriber.on("pmessage", (...message) => messages.push(message));
  assert.equal(await subscriber.subscribe(channel, `${channel}:2`), 2);
  assert.equal(await subscriber.psubscribe(`${channel}:*`), 3);
  assert.equal(await client.publish(channel, "one"), 1);
  assert.equal(await client.publish(`${channel}:2`, "two"), 2);
  await waitUntil(() => messages.length === 3, "three messages");
  const expected = [[channel, "one"], [`${channel}:2`, "two"], [`${channel}:*`, `${channel}:2`, "two"]];
  assert.deepEqual(messages, expected);
  assert.equal(await subscriber.unsubscribe(channel, `${channel}:2`), 1);
  assert.equal(await subscriber.punsubscribe(`${channel}:*`), 0);
  assert.equal(await client.publish(channel, "nobody"), 0);
  assert.equal(await subscriber.echo("still here"), "still here");
}

async function blockingPops(connect) {
  const client = connect();
  const key = fresh("blockingPops");
  assert.equal(await client.blpop(key, 0.05), null);
  const popped = connect().blpop(key, WAIT_SECONDS);
  const read = connect().xread("BLOCK", WAIT_SECONDS * 1000, "STREAMS", `${key}x`, "$");
  const blocked = async () => (await client.info("clients")).includes("blocked_clients:2\r\n");
  await waitUntil(blocked, "both to block");
  await client.rpush(key, "a", "b");
  await client.xadd(`${key}x`, "*", "field", "value");
  assert.deepEqual(await popped, [key, "a"]);
  assert.equal(Object.keys(await read).length, 1);
  assert.deepEqual(await client.lrange(key, 0, -1), ["b"]);
}

async function scripts(connect) {
  const client = connect({
    scripts: { addTo: { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" } },
  });
  const key = fresh("scripts");
  await client.script("FLUSH");
  assert.equal(await client.addTo(key, 5), 5);
  assert.deepEqual(await client.pipeline().addTo(key, 5).get(key).exec(), [[null, 10], [null, "10"]]);
  await client.script("FLUSH");
  assert.equal(await client.addTo(key, 5), 15);
}

async function handshakes(connect) {
  const client = connect({ db: 3, connectionName: "tester" });
  const key = fresh("handshakes");
  await client.set(key, "three");
  assert.equal(await connect().get(key), null);
  assert.equal(await client.client("GETNAME"), "tester");
  assert.match(await client.client("INFO"), / name=tester .* db=3 /);
  await client.select(0);
  assert.equal(await client.get(key), null);
}

async function monitors(connect) {
  const client = connect();
  const key = fresh("monitors");
  // A line of MONITOR that comes in the same read as its OK makes ioredis fail: let nothing else be under way.
  await client.ping();
  const monitor = await client.monitor();
  const seen = [];
  monitor.on("monitor", (_, args) => seen.push(args.join(" ")));
  await client.set(key, "x");
  await waitUntil(() => seen.some((line) => line.toLowerCase() === `set ${key} x`), "the command");
  monitor.disconnect();
}

async function limitsAmongThem(connect) {
  const client = connect();
  const key = fresh("limitsAmongThem");
  const pipeline = client.pipeline();
  for (let number = 0; number < 50; number++) pipeline.call("RL.CHECK", key, 100, "1h").incr(`${key}n`);
  const replies = await pipeline.exec();
  for (let number = 0; number < 50; number++) {
    assertAllowed(replies[2 * number][1], 100, 99 - number);
    assert.deepEqual(replies[2 * number + 1], [null, number + 1]);
  }
  const alone = await client.multi().call("RL.CHECK", key, 100, "1h").call("RL.CHECK", key, 100, "1h").exec();
  assertAllowed(alone[1][1], 100, 48);
  await assert.rejects(client.multi().call("RL.CHECK", key, 100, "1h").incr(`${key}n`).exec(), /EXECABORT/);
}

const TESTS = [
  dataTypes, errors, pipelines, autoPipelining, transactions, publishes, blockingPops, scripts, handshakes, monitors,
];
if (STORE !== "direct") TESTS.push(limitsAmongThem);

await run(
  Object.entries(PROTOCOLS).flatMap(([protocol, options]) =>
    TESTS.map((test) => [`${test.name}, ${protocol}`, () => withClients(options, test)]),
  ),
);
