# sqlwatch test when-quiet.hcl

# An application that works from six to eighteen: after some days nothing of its day is
# taken for quiet.
test "by day it waits, in the evening it acts" {
  policy = "shrink-when-quiet"
  start  = "2026-03-23T00:00:00Z"
  step   = "1m"

  during "6h" { write = "1KB" }
  during "12h" { write = "500KB" }
  during "12h" { write = "1KB" }
  during "12h" { write = "500KB" }
  during "12h" { write = "1KB" }
  during "12h" { write = "500KB" }
  during "12h" { write = "1KB" }
  during "12h" { write = "500KB" }
  during "12h" { write = "1KB" }
  during "6h" { write = "500KB" }
  expect { holds = !window.quiet.open }
  during "6h" { write = "500KB" }
  during "2h" { write = "1KB" }
  expect { holds = wal.bytes < bytes("64MB") }
}
