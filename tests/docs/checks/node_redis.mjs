
import assert from "node:assert";

assert.deepEqual(await check("user:42", 1, "1m"), { allowed: true, retryAfterMs: 0 });
assert.equal((await check("user:42", 1, "1m")).allowed, false);
process.exit(0);
