"""An unmodified application: commits rows through Python's sqlite3.

usage: writer.py DATABASE SECONDS [COMMITS_PER_SECOND]   (0: as fast as it can)
Prints one JSON line at the end: commits made, rows in the table, errors seen.
"""
import json, sqlite3, sys, time

path, seconds = sys.argv[1], float(sys.argv[2])
rate = float(sys.argv[3]) if len(sys.argv) > 3 else 0
db = sqlite3.connect(path, timeout=5, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, body TEXT)")
commits, errors, longest = 0, [], 0.0
end = time.monotonic() + seconds
while time.monotonic() < end:
    began = time.monotonic()
    try:
        db.execute("INSERT INTO t(body) VALUES (?)", ("x" * 300,))
        commits += 1
    except sqlite3.Error as e:
        errors.append(str(e))
    longest = max(longest, time.monotonic() - began)
    if rate:
        time.sleep(1 / rate)
rows = db.execute("SELECT count(*) FROM t").fetchone()[0]
print(json.dumps({"commits": commits, "rows": rows, "errors": errors, "longest_seconds": longest}), flush=True)
