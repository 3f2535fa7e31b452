// Serves the page, and a scene as the state, in place of a Tollgate. To look at one: node tests/page/stub.mjs SCENE [PORT]

import { createServer } from 'node:http';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SCENES, lookUp } from './scenes.mjs';

const PAGE = new URL('../../src/http/page/', import.meta.url);
const TYPES = { html: 'text/html; charset=utf-8', css: 'text/css; charset=utf-8', js: 'text/javascript; charset=utf-8' };
const FILES = readdirSync(PAGE);
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'";

/** A server whose `scene` can be changed at any time; while `status` is set, the state is answered with that. */
export async function serve(scene, port = 0) {
  const stub = { scene, status: 200, asked: 0 };
  const json = (response, status, body) => response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' }).end(JSON.stringify(body));
  stub.server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url, 'http://stub');
    const nowMs = Date.now();
    if (pathname === '/api/state') {
      stub.asked += 1;
      json(response, stub.status, stub.status === 200 ? SCENES[stub.scene].state(nowMs) : { error: 'as told' });
    } else if (pathname === '/api/key') {
      json(response, ...lookUp(searchParams.get('key'), nowMs, stub.scene));
    } else if (pathname === '/' || FILES.includes(pathname.slice(1))) {
      const name = pathname === '/' ? 'index.html' : pathname.slice(1);
      response.writeHead(200, { 'content-type': TYPES[name.split('.').pop()], 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff' }).end(readFileSync(new URL(name, PAGE)));
    } else {
      response.writeHead(404).end();
    }
  });
  stub.open = () => new Promise((resolve, reject) => stub.server.once('error', reject).listen(port, '127.0.0.1', resolve));
  stub.close = () => new Promise((resolve) => { stub.server.close(resolve); stub.server.closeAllConnections(); });
  await stub.open();
  // Where it listens when it is opened again, too.
  port = stub.server.address().port;
  stub.url = `http://127.0.0.1:${port}/`;
  return stub;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await serve(process.argv[2] ?? 'up', Number(process.argv[3] ?? 0));
  console.log(`${url} (scenes: ${Object.keys(SCENES).join(', ')})`);
}
