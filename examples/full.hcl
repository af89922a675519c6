# Everything the configuration offers, in one file.
#
# It needs B2_KEY_ID, B2_APP_KEY and OPS_WEBHOOK in the environment.

server {
  listen    = "127.0.0.1:9942"
  admin     = "unix:///run/sqlwatch/admin.sock"
  state_dir = "/var/lib/sqlwatch"
}

# What all replicas together send: large files at a time, and bytes a second.
uploads {
  at_once   = 4
  bandwidth = "10MB"
}

engine {
  mode = "enforce" # or "dry_run": decide and report, but never act
}

# Set from the environment with SQLWATCH_VAR_wal_limit.
variable "wal_limit" {
  type    = number
  default = bytes("100MB")
}

locals {
  backups = "/var/backups/sqlite"
}

database "app" {
  path         = "/srv/app/app.db"
  labels       = { tier = "gold" }
  replicate_to = [replica.s3.main, replica.file.local]
  restart {
    at           = "32MB"
    stall_budget = "50ms"
  }
}

database "tenants" {
  glob         = "/srv/tenants/*/data.db"
  name         = "tenant-${path_element(db.path, -2)}"
  replicate_to = [replica.s3.main]
}

replica "s3" "main" {
  bucket     = "backups"
  prefix     = "v1/${db.name}"
  region     = env("AWS_REGION", "us-east-005")
  endpoint   = env("S3_ENDPOINT", null)
  path_style = true
  credentials {
    access_key = env("B2_KEY_ID")
    secret_key = secret(env("B2_APP_KEY"))
  }
  sync_every = "1s"
  snapshot { every = "24h" }
  retention { keep = "720h" }
  verify { every = "168h" }
}

replica "file" "local" {
  dir = "${local.backups}/${db.name}"
}

window "night" {
  cron     = "0 2 * * *"
  duration = "3h"
  timezone = "Europe/Berlin"
}

window "quiet" {
  learn {
    signal      = rate(wal.frames_written, "1m")
    quantile    = 0.20
    min_history = "72h"
    fallback    = window.night
  }
}

policy "shrink-wal-off-peak" {
  when      = wal.bytes > var.wal_limit
  for       = "2m"
  until     = wal.bytes < bytes("8MB")
  unless    = replica.lag > duration("2m")
  window    = any_of(window.night, window.quiet)
  max_defer = "26h"
  cooldown  = "30m"
  checkpoint {
    stall_budget = "200ms"
    step "passive" { repeat = 3 }
    step "truncate" { busy_timeout = "100ms" }
    on_busy {
      backoff = "30s"
      max     = "30m"
    }
  }
  tune "stall" {
    goal = p95_over(checkpoint.stall, "7d") < duration("150ms")
    mode = "suggest"
  }
}

# What waits for the night does not grow meanwhile.
policy "keep-wal-from-growing" {
  when     = wal.used_bytes > var.wal_limit * 0.25 && checkpoint.backlog_frames > 0
  cooldown = "10s"
  checkpoint {
    step "passive" { repeat = 3 }
    on_busy {
      backoff = "10s"
      max     = "1m"
    }
  }
}

# The emergency, at any hour: writers may be stalled for longer.
policy "wal-emergency" {
  when     = wal.bytes > var.wal_limit * 1.5
  for      = "1m"
  until    = wal.bytes < var.wal_limit
  priority = 50
  severity = "critical"
  notify   = [notifier.webhook.ops]
  checkpoint {
    stall_budget = "1s"
  }
}

policy "replica-stale" {
  when     = replica.lag > duration("30s")
  for      = "1m"
  cooldown = "1h"
  severity = "critical"
  notify   = [notifier.webhook.ops]
  message  = "${db.name}: replica is ${human_duration(replica.lag)} behind"
}

policy "weekly-drill" {
  when     = coalesce(replica.last_verified_age, duration("365d")) > duration("7d") # never verified: overdue
  window   = window.night
  cooldown = "24h"
  verify {}
}

policy "snapshot-after-bulk-load" {
  when     = increase(wal.frames_written, "1h") > 500000
  for      = "10m"
  cooldown = "12h"
  snapshot {}
}

policy "catch-up-before-night" {
  when     = replica["s3.main"].pending_bytes > bytes("64MB") && window.night.opens_in < duration("10m")
  cooldown = "1h"
  sync {}
}

notifier "webhook" "ops" {
  url = env("OPS_WEBHOOK")
}
