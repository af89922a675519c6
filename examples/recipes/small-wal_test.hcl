# sqlwatch test small-wal.hcl

test "a large WAL is given back" {
  policy = "small-wal"
  start  = "2026-03-27T10:00:00Z"

  database { wal = "100MB" }

  during "10s" { write = "10KB" }
  expect {
    runs  = 1
    holds = wal.bytes < bytes("1MB")
  }
}

test "a fortnight" {
  policy = "small-wal"
  start  = "2026-03-23T00:00:00Z"
  step   = "1m"
  always = wal.bytes < bytes("128MB")

  during "336h" { write = "300KB" }
  expect { holds = max_over(wal.bytes, "24h") > bytes("64MB") }
}
