# The ledger through Python's sqlite3, with its default, deferred transactions: read, then write.
import hashlib, os, select, sqlite3, sys, time
path, log, pause = sys.argv[2], sys.argv[4], float(sys.argv[8].rstrip("ms")) / 1000
out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
say = lambda *words: os.write(out, (" ".join(map(str, words)) + "\n").encode())
os.write(out, b"\n")
try:
    db = sqlite3.connect(path, timeout=5, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    at = db.execute("SELECT id, hash FROM state").fetchone()
    say("R", *at, time.time_ns())
    while not select.select([0], [], [], pause)[0]:
        db.execute("BEGIN")
        id, prev = db.execute("SELECT id, hash FROM state").fetchone()
        body = os.urandom(60)
        hash = hashlib.sha256(b"%s|%d|%s" % (prev.encode(), id + 1, body)).hexdigest()
        db.execute("INSERT INTO ledger VALUES(?, ?, ?, ?)", (id + 1, prev, body, hash))
        db.execute("UPDATE state SET id = ?, hash = ?", (id + 1, hash))
        say("B", id + 1, hash, time.time_ns())
        db.execute("COMMIT")
        say("C", id + 1, hash, time.time_ns(), 0)
    db.close()
except Exception as e:
    say("E python:", repr(e))
