// A BullMQ worker, and the queue that it serves.

import { appendFileSync } from "node:fs";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue, Worker } from "bullmq";
import Redis from "ioredis";

const FOLDER = process.env.TOLLGATE_WORKER_FOLDER;
// Behind this port is a Tollgate, and not Redis itself.
const CHECKS_LIMITS = process.env.TOLLGATE_STORE !== "direct";
const CHECK_MS = 20;

// Queue, worker and checks share it; the worker has another one to block on.
const connection = new Redis({ port: Number(process.env.TOLLGATE_PORT), maxRetriesPerRequest: null });
const queue = new Queue("jobs", { connection });
const worker = new Worker("jobs", work, { connection });
for (const one of [connection, queue, worker]) one.on("error", (error) => console.log(`error ${error.message}`));

function say(line) {
  appendFileSync(join(FOLDER, "said"), `${line}\n`);
}

async function work({ data: { name, seconds } }) {
  say(`begun ${name}`);
  await sleep(seconds * 1000);
  say(`did ${name}`);
}

async function putJobs() {
  for await (const line of createInterface({ input: process.stdin })) {
    const [name, seconds] = line.split(" ");
    try {
      await queue.add("job", { name, seconds: Number(seconds) });
      say(`put ${name}`);
    } catch (error) {
      say(`could not put ${name}: ${error}`);
    }
  }
}

// Writes how long each answer took in ms, and its field `degraded` or the error.
async function checkLimits() {
  for (;;) {
    const asked = performance.now();
    let outcome;
    try {
      outcome = (await connection.call("RL.CHECK", `worker:${basename(FOLDER)}`, 1_000_000_000, 60))[5];
    } catch (error) {
      outcome = String(error);
    }
    appendFileSync(join(FOLDER, "checks"), `${(performance.now() - asked).toFixed(1)} ${outcome}\n`);
    await sleep(CHECK_MS);
  }
}

await worker.waitUntilReady();
putJobs();
if (CHECKS_LIMITS) checkLimits();
say("ready");
