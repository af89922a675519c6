module github.com/sqlwatch/sqlwatch/tools/e2e

go 1.26.0

require github.com/sqlwatch/sqlwatch v0.0.0

require github.com/hanwen/go-fuse/v2 v2.12.1

require golang.org/x/sys v0.50.0 // indirect

replace github.com/sqlwatch/sqlwatch => ../..
