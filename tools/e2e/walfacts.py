"""Reads the facts of a database in WAL mode from its files alone, as a second
opinion on what sqlwatch exports. usage: walfacts.py DATABASE. Prints JSON."""
import json, os, struct, sys

path = sys.argv[1]
with open(path + "-shm", "rb") as f:
    shm = f.read(136)
first, second = shm[:48], shm[48:96]
assert first == second, "the two copies of the wal-index header differ"
change, = struct.unpack_from("=I", first, 8)
page_size, = struct.unpack_from("=H", first, 14)
frames, pages = struct.unpack_from("=II", first, 16)
backfilled, = struct.unpack_from("=I", shm, 96)
print(json.dumps({
    "change": change,
    "page_size": 65536 if page_size == 1 else page_size,
    "frames": frames,
    "pages": pages,
    "checkpointed": backfilled,
    "wal_size": os.stat(path + "-wal").st_size,
    "database_size": os.stat(path).st_size,
}))
