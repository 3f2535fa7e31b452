// As load.py: asks by ioredis, or by node-redis, with its default settings until its input ends, and says what came of it
// as JSON. They have no pool of their own: an application that wants more than one connection makes them.

const { setTimeout: sleep } = require("node:timers/promises");

const CLIENTS = 4;
const CALLERS = 20;
const PAUSE_MS = 2;

const PORT = Number(process.env.TOLLGATE_PORT);
const result = { library: process.argv[2], asked: 0, counted: 0, slowest_ms: 0, errors: {} };
let ended = false;

function count(error) {
  const text = `${error.name}: ${error.message}`;
  result.errors[text] = (result.errors[text] ?? 0) + 1;
}

// What a client has by way of send(command, ...arguments), once it is connected.
const MAKERS = {
  async ioredis() {
    const Redis = require("ioredis");
    result.library = `ioredis ${require("ioredis/package.json").version}`;
    const client = new Redis({ host: "127.0.0.1", port: PORT });
    // An application that has none of these is told on its console.
    client.on("error", count);
    await client.ping();
    return { send: (...args) => client.call(...args), close: () => client.disconnect() };
  },
  async "node-redis"() {
    const { createClient } = require("redis");
    result.library = `node-redis ${require("redis/package.json").version}`;
    const client = createClient({ socket: { host: "127.0.0.1", port: PORT } });
    // It ends the process of an application that has none of these.
    client.on("error", () => {});
    await client.connect();
    return { send: (...args) => client.sendCommand(args), close: () => client.destroy() };
  },
};

async function ask(client, number) {
  const began = performance.now();
  try {
    if (number % 3 === 0) {
      await client.send("RL.CHECK", `user:${number % 100}`, "1000000", "1m");
    } else if (number % 3 === 1) {
      await client.send("INCR", "counter");
      result.counted++;
    } else {
      await client.send("GET", "counter");
    }
  } catch (error) {
    count(error);
  }
  result.asked++;
  result.slowest_ms = Math.max(result.slowest_ms, Math.round(performance.now() - began));
}

async function askOn(client, first) {
  for (let number = first; !ended; number++) {
    await ask(client, number);
    await sleep(PAUSE_MS);
  }
}

async function main() {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, MAKERS[process.argv[2]]));
  process.stdin.resume().on("end", () => (ended = true));
  await Promise.all(Array.from({ length: CALLERS }, (_, caller) => askOn(clients[caller % CLIENTS], caller)));
  for (const client of clients) {
    client.close();
  }
  console.log(JSON.stringify(result));
}

main();
