
import assert from "node:assert";
import { once } from "node:events";
import express from "express";

if (tollgate.status !== "ready") await once(tollgate, "ready");
const app = express();
app.get("/", rateLimit(2, "1m"), (_request, response) => response.send("hello"));
app.get("/wrong", rateLimit("wrong", "1m"), (_request, response) => response.send("hello"));
app.use((_error, _request, response, _next) => response.sendStatus(500));
const server = app.listen(0, "127.0.0.1");
await once(server, "listening");
const get = (path) => fetch(`http://127.0.0.1:${server.address().port}${path}`);

assert.equal((await get("/")).status, 200);
assert.equal((await get("/")).status, 200);
const denied = await get("/");
assert.equal(denied.status, 429);
assert.ok(denied.headers.get("retry-after") >= 58 && denied.headers.get("retry-after") <= 60);
assert.equal((await get("/wrong")).status, 500);
tollgate.disconnect();
assert.equal((await get("/")).status, 200);
process.exit(0);
