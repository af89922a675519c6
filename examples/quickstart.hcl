# One database, one policy: keep the WAL small, at any time of day. The policy is the one that `sqlwatch run FILE`
# follows without a configuration.
#
#   sqlwatch run --config quickstart.hcl

server {
  listen    = "127.0.0.1:9942"
  admin     = "unix:///run/sqlwatch/admin.sock"
  state_dir = "/var/lib/sqlwatch"
}

database "app" {
  path = "/srv/app/app.db"
}

policy "shrink-wal" {
  when     = wal.bytes > bytes("64MB")
  for      = "30s"
  until    = wal.bytes < bytes("8MB")
  cooldown = "5m"

  checkpoint {
    stall_budget = "200ms"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "50ms" }
    on_busy {
      backoff = "30s"
      max     = "30m"
    }
  }
}
