"""A sample application: one order a second, in WAL mode, as a framework would do it."""
import sqlite3
import sys
import time

db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level="IMMEDIATE")
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=NORMAL")
with db:
    db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, placed REAL, note TEXT)")
while True:
    with db:
        db.execute("INSERT INTO orders (placed, note) VALUES (julianday('now'), hex(randomblob(200)))")
    time.sleep(1)
