module github.com/sqlwatch/sqlwatch/tools/bench

go 1.26.0
