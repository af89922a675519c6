module github.com/sqlwatch/sqlwatch/tools/e2e

go 1.26.0

require github.com/sqlwatch/sqlwatch v0.0.0

replace github.com/sqlwatch/sqlwatch => ../..
