# A small WAL at any hour: the least that a policy can say.

database "app" {
  path = "/srv/app/app.db"
}

policy "small-wal" {
  when = wal.bytes > bytes("64MB")
  checkpoint {}
}
