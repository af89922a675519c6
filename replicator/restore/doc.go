// Package restore makes databases of replicas: the newest state, or that of a
// moment or a TXID, exactly, or an error that says why not. A catalog.Plan names the files;
// only the newest version of each page is fetched, in parallel; checksums,
// quick_check and fsync come before the file has its name. What is in a store is
// not trusted: bounds are checked before anything is allocated.
//
// It reads what sqlwatch and Litestream 0.5 wrote, and Litestream 0.3's generations.
package restore
