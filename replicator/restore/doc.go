// Package restore restores databases from replicas: exactly the newest state, or that of a
// moment or a TXID, or an error that says why not. A catalog.Plan names the files; of large
// files only the newest version of each page is fetched, in parallel. The file gets its name
// only after checksums, quick_check and fsync. The store's contents are not trusted: sizes
// are checked before anything is allocated.
//
// It reads replicas of sqlwatch and Litestream 0.5, and the generations of Litestream 0.3.
package restore
