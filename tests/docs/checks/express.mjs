
import assert from "node:assert";
import { once } from "node:events";
import net from "node:net";
import express from "express";

const POLICY = '"api-1";q=3;w=60, "api-2";q=100;w=3600';
const app = express();
app.set("trust proxy", "loopback");
const hello = (_request, response) => response.send("hello");
for (const name of ["api", "search", "trial", "unknown"]) app.get(`/${name}`, rateLimit(name), hello);
app.get("/plain", rateLimit(2, "1m"), hello);
app.use((_error, _request, response, _next) => response.sendStatus(500));
const server = app.listen(0, "127.0.0.1");
await once(server, "listening");
if (tollgate.status !== "ready") await once(tollgate, "ready");

// Whether a response is so. What is `soon` may be as much as two seconds less, for the time that has passed.
async function look(path, status, policy, state, retryAfter = null, address = "10.0.0.1") {
  const url = `http://127.0.0.1:${server.address().port}/${path}`;
  const response = await fetch(url, { headers: { "X-Forwarded-For": address } });
  assert.deepEqual([response.status, response.headers.get("ratelimit-policy")], [status, policy]);
  for (const [name, wanted] of [["ratelimit", state], ["retry-after", retryAfter]]) {
    const got = response.headers.get(name);
    const pattern = wanted?.replace(/(\d+) soon/g, (_, number) => `(${number}|${number - 1}|${number - 2})`);
    assert.ok(got === wanted || new RegExp(`^${pattern}$`).test(got), `${got}, not ${wanted}`);
  }
  return response;
}

// Has the middleware ask another Tollgate.
async function use(port) {
  tollgate.disconnect();
  if (tollgate.status !== "end") await once(tollgate, "end");
  Object.assign(tollgate.options, { host: "127.0.0.1", port, retryStrategy: null });
  await tollgate.connect().catch(() => {});
}

await look("api", 200, POLICY, '"api-1";r=2;t=60 soon, "api-2";r=99;t=3600 soon');
await look("api", 200, POLICY, '"api-1";r=1;t=60 soon, "api-2";r=98;t=3600 soon');
await look("api", 200, POLICY, '"api-1";r=0;t=60 soon, "api-2";r=97;t=3600 soon');
const denied = await look("api", 429, POLICY, '"api-1";r=0;t=60 soon', "60 soon");
assert.match(denied.headers.get("content-type"), /^application\/problem\+json/);
const problem = {
  type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
  title: "Quota Exceeded",
  status: 429,
  "violated-policies": ["api-1"],
};
assert.deepEqual(await denied.json(), problem);

const policies = '"search-1";q=20, "search-2";q=600;w=60';
await look("search", 200, policies, '"search-1";r=19;t=1, "search-2";r=599;t=60 soon');
const blocked = await look("api", 429, null, null, null, "10.6.6.6");
assert.deepEqual(await blocked.json(), { ...problem, "violated-policies": [] });
await look("api", 200, null, null, null, "10.7.7.7");
await look("trial", 200, '"trial-1";q=1;w=60', '"trial-1";r=0;t=60 soon');
await look("trial", 200, '"trial-1";q=1;w=60', '"trial-1";r=0;t=60 soon');
await look("plain", 200, '"default-1";q=2;w=60', '"default-1";r=1;t=60 soon');
await look("unknown", 500, null, null);

// Its Redis is away.
await use(6381);
await look("api", 200, POLICY, '"api-1";r=0;t=60 soon, "api-2";r=49;t=72 soon');
await look("api", 429, POLICY, '"api-1";r=0;t=60 soon', "60 soon");

// Nobody listens there.
await use(1);
await look("api", 200, null, null);

// Somebody listens there, and says nothing once the client has come in.
let isSilent = false;
const relay = net.createServer((client) => {
  const server = net.connect(6380, "127.0.0.1");
  client.pipe(server);
  server.on("data", (data) => isSilent || client.write(data));
});
relay.listen(0, "127.0.0.1");
await once(relay, "listening");
await use(relay.address().port);
assert.equal(tollgate.status, "ready");
isSilent = true;
const began = performance.now();
await look("api", 200, null, null);
assert.ok(performance.now() - began < 2000);

// Seconds are rounded up, and a window that is not of whole seconds has no `w`.
const limit = (limit, window_ms, remaining, retry_after_ms, next_ms) =>
  Object.entries({ limit, window_ms, remaining, retry_after_ms, next_ms }).flat();
const limits = [limit(5, 1500, 0, 1001, 1000), limit(9, 2000, 4, 0, 1), limit(9, 3000, 9, 0, 0)];
const made = headerFields({ allowed: 0, reason: "limit", policy: "p", retry_after_ms: 1001, limits });
const fields = { "RateLimit-Policy": '"p-1";q=5, "p-2";q=9;w=2, "p-3";q=9;w=3' };
assert.deepEqual(made.fields, { ...fields, RateLimit: '"p-1";r=0;t=1', "Retry-After": "2" });
assert.deepEqual(made.violated, ["p-1"]);
const states = '"p-1";r=0;t=1, "p-2";r=4;t=1, "p-3";r=9';
const allowed = headerFields({ allowed: 1, reason: "ok", policy: "p", retry_after_ms: 0, limits });
assert.deepEqual(allowed.fields, { ...fields, RateLimit: states });
process.exit(0);
