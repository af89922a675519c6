# The policies that `sqlwatch run FILE` follows without a configuration.

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
