// The ledger through node's own SQLite, or else through better-sqlite3, both of which have one of their own.
const { createHash, randomBytes } = require("crypto"), fs = require("fs");
const [path, log, pause] = [process.argv[3], process.argv[5], parseFloat(process.argv[9])];
const out = fs.openSync(log, "a", 0o600);
const say = (...words) => fs.writeSync(out, words.join(" ") + "\n");
const now = () => (BigInt(Math.floor((performance.timeOrigin + performance.now()) * 1000)) * 1000n).toString();
const open = () => {
  try { return new (require("node:sqlite").DatabaseSync)(path, { timeout: 5000 }); }
  catch (e) { if (e.code !== "ERR_UNKNOWN_BUILTIN_MODULE") throw e; }
  return new (require("better-sqlite3"))(path); // it waits for 5 s by itself
};
say();
try {
  const db = open();
  db.exec("PRAGMA journal_mode=WAL");
  const state = db.prepare("SELECT id, hash FROM state");
  const add = db.prepare("INSERT INTO ledger VALUES(?, ?, ?, ?)"), move = db.prepare("UPDATE state SET id = ?, hash = ?");
  const first = state.get();
  say("R", first.id, first.hash, now());
  let ended = false;
  process.stdin.on("end", () => { ended = true; }).resume();
  const step = () => {
    try {
      if (ended) { db.close(); process.exit(0); }
      db.exec("BEGIN"); // deferred, as both do it by default
      const at = state.get(), id = at.id + 1, body = randomBytes(60);
      const hash = createHash("sha256").update(`${at.hash}|${id}|`).update(body).digest("hex");
      add.run(id, at.hash, body, hash);
      move.run(id, hash);
      say("B", id, hash, now());
      db.exec("COMMIT");
      say("C", id, hash, now(), 0);
      setTimeout(step, pause);
    } catch (e) { say("E node:", e.message); process.exit(1); }
  };
  step();
} catch (e) { say("E node:", e.message); process.exit(1); }
