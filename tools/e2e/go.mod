module github.com/sqlwatch/sqlwatch/tools/e2e

go 1.26
