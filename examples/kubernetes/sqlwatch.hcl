# sqlwatch beside a Django application in one pod.

server {
  listen = "0.0.0.0:9942" # the pod's; a NetworkPolicy lets Prometheus in, nobody else
}

database "app" {
  path         = "/data/db.sqlite3"
  replicate_to = [replica.s3.main]
}

replica "s3" "main" {
  bucket = "example-backups"
  prefix = "django/${db.name}"
  region = "eu-central-1"
  snapshot { every = "24h" }
  retention { keep = "168h" }
}

policy "shrink-wal" {
  when     = wal.bytes > bytes("64MB")
  for      = "30s"
  until    = wal.bytes < bytes("8MB")
  cooldown = "5m"
  checkpoint {}
}
