# One database a tenant, found by a pattern. A tenant that appears later is
# picked up; one that is broken does not stop the others.

database "tenants" {
  glob         = "/srv/tenants/*/data.db"
  name         = "tenant-${path_element(db.path, -2)}"
  labels       = { tier = "standard" }
  replicate_to = [replica.file.local]
}

database "billing" {
  path         = "/srv/billing/billing.db"
  labels       = { tier = "gold" }
  replicate_to = [replica.file.local]
}

replica "file" "local" {
  dir = "/var/backups/sqlite/${db.name}"
  snapshot { every = "24h" }
  retention { keep = "168h" }
}

# Gold databases are served first; the others wait for half a gigabyte.
policy "shrink-gold" {
  when     = db.labels.tier == "gold" && wal.bytes > bytes("32MB")
  for      = "30s"
  priority = 10
  cooldown = "5m"
  checkpoint {
    stall_budget = "50ms"
  }
}

policy "shrink-tenants" {
  databases = ["tenant-*"]
  when      = wal.bytes > bytes("128MB") || wal.bytes > db.bytes * 0.5 && wal.bytes > bytes("16MB")
  for       = "1m"
  cooldown  = "15m"
  checkpoint {}
}

# Until their turn comes, no WAL grows: PASSIVE makes nobody wait.
policy "keep-wals-from-growing" {
  when     = wal.used_bytes > bytes("8MB") && checkpoint.backlog_frames > 0
  cooldown = "10s"
  checkpoint {
    step "passive" { repeat = 3 }
    on_busy {
      backoff = "10s"
      max     = "1m"
    }
  }
}
