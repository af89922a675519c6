# sqlwatch test disk-filling.hcl

test "a filling disk" {
  policy = "disk-is-filling"
  start  = "2026-03-27T14:00:00Z"

  database {
    wal  = "100MB"
    disk = "100GB"
  }

  during "30m" { disk_free = "20GB" }
  during "30m" { disk_free = "15GB" }
  expect { runs = 1 }
}

test "a full but steady disk" {
  policy = "disk-is-filling"
  start  = "2026-03-27T14:00:00Z"
  never  = wal.bytes == 0

  database {
    wal  = "100MB"
    disk = "100GB"
  }

  during "2h" { disk_free = "3GB" }
  expect { runs = 0 }
}
