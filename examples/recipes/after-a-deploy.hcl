# A deploy restarts everything and fills the WAL for some minutes. Nothing is done about
# that until five minutes after sqlwatch has begun to watch, nor right after a drill.

database "app" {
  path         = "/srv/app/app.db"
  replicate_to = [replica.file.nas]
}

replica "file" "nas" {
  dir = "/mnt/nas/sqlite/${db.name}"
}

policy "shrink-wal" {
  when     = wal.bytes > bytes("64MB")
  for      = "30s"
  hold_off = "5m"
  checkpoint {}
}

policy "daily-snapshot" {
  when     = wal.frames_written > 0
  cooldown = "24h"
  snapshot {}
}
