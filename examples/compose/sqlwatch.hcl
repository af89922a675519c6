# sqlwatch beside the application of compose.yml.

database "app" {
  path         = "/data/app.db"
  replicate_to = [replica.file.volume]
}

replica "file" "volume" {
  dir = "/replica/${db.name}"
}

policy "shrink-wal" {
  when     = wal.bytes > bytes("64MB")
  for      = "30s"
  until    = wal.bytes < bytes("8MB")
  cooldown = "5m"
  checkpoint {}
}
