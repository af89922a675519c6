# sqlwatch test tiers.hcl

test "gold at 32 MB" {
  policy = "shrink-gold"
  start  = "2026-03-27T14:00:00Z"

  database {
    name   = "gold-acme"
    labels = { tier = "gold" }
    wal    = "40MB"
  }

  during "1m" {}
  expect { runs = 1 }
}

test "the others later" {
  policy = "shrink-standard"
  start  = "2026-03-27T14:00:00Z"

  database {
    name   = "tenant-acme"
    labels = { tier = "standard" }
    wal    = "40MB"
  }

  during "1h" {}
  expect {
    phase = "inactive"
    runs  = 0
  }
}

test "a fortnight of gold" {
  policy = "shrink-gold"
  start  = "2026-03-23T00:00:00Z"
  step   = "1m"
  always = wal.bytes < bytes("64MB")

  database {
    name   = "gold-acme"
    labels = { tier = "gold" }
  }

  during "336h" { write = "50KB" }
  expect { holds = wal.bytes < bytes("64MB") }
}
