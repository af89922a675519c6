package main

import (
	"database/sql"
	"fmt"
	"hash/crc32"
)

// judge opens a restored database with the system's SQLite and returns the commit boundary that
// it is at. It returns an error if anything does not hold: the chain of hashes, the sum of all
// accounts, the churn table's own checksum, or SQLite's integrity check.
func judge(path string) (state, error) {
	db, err := sql.Open("sqlite3", "file:"+path+"?mode=ro&immutable=1")
	if err != nil {
		return state{}, err
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return state{}, fmt.Errorf("integrity check: %q, %v", verdict, err)
	}
	var tables int
	if err := db.QueryRow("SELECT count(*) FROM sqlite_schema WHERE name = 'state'").Scan(&tables); err != nil {
		return state{}, err
	}
	if tables == 0 {
		return state{}, nil // a moment before the application had created its tables
	}
	var s state
	var wantN, wantSum int64
	switch err := db.QueryRow("SELECT id, hash, churn_n, churn_sum FROM state").Scan(&s.ID, &s.Hash, &wantN, &wantSum); {
	case err == sql.ErrNoRows:
		return state{}, nil
	case err != nil:
		return state{}, err
	}
	if err := judgeLedger(db, s); err != nil {
		return s, err
	}
	var balance sql.NullInt64
	var accounts int
	if err := db.QueryRow("SELECT sum(balance), count(*) FROM account").Scan(&balance, &accounts); err != nil {
		return s, err
	}
	if accounts != 0 && balance.Int64 != 50*1000 {
		return s, fmt.Errorf("balances add up to %d, want 50000", balance.Int64)
	}
	return s, judgeChurn(db, wantN, wantSum)
}

func judgeLedger(db *sql.DB, want state) error {
	rows, err := db.Query("SELECT id, prev, body, hash FROM ledger ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var at state
	for first := true; rows.Next(); first = false {
		var id int64
		var prev, hash string
		var body []byte
		if err := rows.Scan(&id, &prev, &body, &hash); err != nil {
			return err
		}
		if first { // older rows were archived
			at = state{id - 1, prev}
		}
		if id != at.ID+1 || prev != at.Hash || hash != chain(prev, id, body) {
			return fmt.Errorf("ledger broken at row %d after row %d", id, at.ID)
		}
		at = state{id, hash}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if at != want {
		return fmt.Errorf("ledger ends at %d, state row says %d", at.ID, want.ID)
	}
	return nil
}

func judgeChurn(db *sql.DB, wantN, wantSum int64) error {
	rows, err := db.Query("SELECT body, crc FROM churn")
	if err != nil {
		return err
	}
	defer rows.Close()
	var n, sum int64
	for rows.Next() {
		var body []byte
		var crc int64
		if err := rows.Scan(&body, &crc); err != nil {
			return err
		}
		if int64(crc32.ChecksumIEEE(body)) != crc {
			return fmt.Errorf("churn row has crc %d, its content another", crc)
		}
		n++
		sum += crc
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != wantN || sum != wantSum {
		return fmt.Errorf("churn holds %d rows summing to %d, state row says %d and %d", n, sum, wantN, wantSum)
	}
	return nil
}
