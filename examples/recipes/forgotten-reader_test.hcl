# sqlwatch test forgotten-reader.hcl

test "a report that never ends" {
  policy = "forgotten-reader"
  start  = "2026-03-27T14:00:00Z"

  database { wal = "60MB" }

  during "14m" {
    write  = "1MB"
    reader = true
  }
  expect {
    at   = "10m30s"
    runs = 0
  }
  expect { runs = 1 }
}
