# After a bulk load a snapshot is taken, so that a restore need not play the load again.

database "app" {
  path         = "/srv/app/app.db"
  replicate_to = [replica.file.nas]
}

replica "file" "nas" {
  dir = "/mnt/nas/sqlite/${db.name}"
}

policy "snapshot-after-bulk-load" {
  when     = increase(wal.frames_written, "1h") > 500000 && rate(wal.frames_written, "5m") < 100
  for      = "2m"
  cooldown = "12h"
  snapshot {}
}
