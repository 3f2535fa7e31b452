
import assert from "node:assert";
import { once } from "node:events";

if (tollgate.status !== "ready") await once(tollgate, "ready");
assert.deepEqual(await check("user:42", 1, "1m"), { allowed: true, retryAfterMs: 0 });
assert.equal((await check("user:42", 1, "1m")).allowed, false);
await assert.rejects(check("user:42", "wrong", "1m"), { name: "ReplyError" });

// Nobody listens there: the command fails at once.
const away = new Redis({ ...tollgate.options, port: 1 });
away.on("error", () => {});
await assert.rejects(away.call("RL.CHECK", "user:42", 1, "1m"));
process.exit(0);
