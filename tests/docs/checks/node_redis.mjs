
import assert from "node:assert";

assert.deepEqual(await check("user:42", 1, "1m"), { allowed: true, retryAfterMs: 0 });
assert.equal((await check("user:42", 1, "1m")).allowed, false);
// A Tollgate that is silent.
tollgate.sendCommand = () => new Promise(() => {});
await assert.rejects(check("user:42", 1, "1m"), /does not answer/);
process.exit(0);
