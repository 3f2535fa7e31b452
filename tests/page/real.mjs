// A real Tollgate in the states that its page has to tell of, before a real Redis or embedded.

import { spawn } from 'node:child_process';
import { createServer, connect } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SCRIPT_KEY } from './scenes.mjs';

const PATIENCE_MS = 30_000;

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

async function until(what, condition) {
  const start = Date.now();
  while (!(await condition().catch(() => false))) {
    if (Date.now() - start > PATIENCE_MS) throw new Error(`still waiting: ${what}`);
    await sleep(50);
  }
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Sends commands in one breath, and waits for so many replies of six integers. */
function checks(port, commands) {
  return new Promise((resolve, reject) => {
    const client = connect(port, '127.0.0.1');
    let lines = 0;
    client.on('error', reject);
    client.on('data', (data) => {
      lines += data.toString('latin1').split('\r\n').length - 1;
      if (lines >= 7 * commands.length) client.end(resolve);
    });
    client.write(commands.map((args) => `*${args.length}\r\n${args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join('')}`).join(''));
  });
}

const repeat = (count, args) => Array.from({ length: count }, () => args);

/** Who is allowed, who denied, and a key that is a script. */
const TRAFFIC = [...repeat(30, ['RL.CHECK', 'user:42', '10', '60']), ...repeat(40, ['RL.CHECK', 'tenant:acme', '1000', '60']), ...repeat(5, ['RL.CHECK', SCRIPT_KEY, '2', '60'])];

class Process {
  constructor(program, args, env = {}) {
    const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TOLLGATE|REDIS)_/.test(name)));
    this.child = spawn(program, args, { env: { ...own, ...env }, stdio: ['ignore', 'ignore', 'pipe'] });
    this.log = '';
    this.child.stderr.on('data', (data) => { this.log += data; });
    this.ended = new Promise((resolve) => { this.child.on('exit', resolve); });
  }

  async stop() {
    this.child.kill('SIGTERM');
    await this.ended;
  }
}

/** Each state: what brings it about, given where Tollgate is and its Redis, and what the page then says. */
export const STATES = {
  empty: { says: /^Ready\. No check has come yet\.$/, shows: ['Send the first check'] },
  up: {
    bring: ({ port }) => checks(port, TRAFFIC),
    says: /^All exact\. /,
    shows: ['Denied most', 'user:42', 'tenant:acme', SCRIPT_KEY, 'Round trip', 'None since the start.'],
    finds: { 'user:42': '10 used', [SCRIPT_KEY]: `${SCRIPT_KEY} at`, nobody: 'It has no state' },
    expected: [/404/],
  },
  degraded: {
    bring: async ({ port, redis, isExact }) => {
      await redis.stop();
      await until('an outage', async () => !(await isExact()));
      await checks(port, TRAFFIC);
    },
    says: /^Redis has been down for .+: answers are degraded\.$/,
    finds: { 'user:42': 'Redis is down.' },
    expected: [/503/],
    shows: ['Nobody listens there.', 'Local buckets admit 50 % of each limit.', 'went down: nobody listens there'],
  },
  recovered: {
    bring: async ({ startRedis, isExact }) => {
      await startRedis();
      await until('the end of the outage', isExact);
    },
    says: /^All exact\. /,
    shows: ['came up', 'went down'],
  },
  embedded: { isEmbedded: true, bring: ({ port }) => checks(port, TRAFFIC), says: /^All exact, without a Redis\. /, shows: ['user:42', 'this process’s own memory'], finds: { 'user:42': '10 used' } },
};

/** A Tollgate of its own for a list of states that follow one another. */
export async function start(program, isEmbedded) {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-page-'));
  const [port, httpPort, redisPort] = [await freePort(), await freePort(), await freePort()];
  const real = { port, url: `http://127.0.0.1:${httpPort}/` };
  real.startRedis = async () => {
    real.redis = new Process('redis-server', ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--save', '', '--dir', folder]);
  };
  if (!isEmbedded) await real.startRedis();
  // The deadline is for a machine that is busy.
  const env = { TOLLGATE_HTTP__LISTEN: `127.0.0.1:${httpPort}`, TOLLGATE_REDIS__TIMEOUT_MS: '5000' };
  real.tollgate = new Process(program, ['--listen', `127.0.0.1:${port}`, ...(isEmbedded ? ['--embedded'] : ['--redis', `127.0.0.1:${redisPort}`])], env);
  const state = async () => (await fetch(`${real.url}api/state`)).json();
  real.isExact = async () => (await state()).state.exact;
  real.stop = async () => {
    await real.tollgate.stop();
    await real.redis?.stop();
    rmSync(folder, { recursive: true });
  };
  await until('tollgate', async () => (await (await fetch(`${real.url}readyz`)).text()) === 'ready\n').catch(async (error) => {
    console.log(real.tollgate.log);
    await real.stop();
    throw error;
  });
  return real;
}
