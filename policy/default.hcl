# The policies that `sqlwatch run FILE` follows without a configuration.

# A WAL that has grown is given back to the file system.
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

# Meanwhile it does not grow further: PASSIVE copies it into the database and makes
# nobody wait, and the next writer begins it anew within its file.
policy "keep-wal-from-growing" {
  when     = wal.used_bytes > bytes("16MB") && checkpoint.backlog_frames > 0
  cooldown = "10s"

  checkpoint {
    step "passive" { repeat = 3 }
    on_busy {
      backoff = "10s"
      max     = "1m"
    }
  }
}

# The emergency. What has grown to twice the limit all the same is truncated even if
# writers are stalled for a second, and so is any WAL on a disk that is nearly full.
policy "wal-emergency" {
  when = (
    wal.bytes > bytes("128MB") ||
    disk.free_ratio < percent("3%") && wal.bytes > bytes("8MB")
  )
  for      = "1m"
  until    = wal.bytes < bytes("64MB")
  priority = 50
  cooldown = "2m"
  severity = "critical"

  checkpoint {
    stall_budget = "1s"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "200ms" }
    on_busy {
      backoff = "30s"
      max     = "5m"
    }
  }
}
