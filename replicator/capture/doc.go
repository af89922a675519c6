// Package capture copies every commit of one database into a spool of LTX files, without writing to the
// database and without stopping its writers. It holds a read mark low in the WAL, so that nobody can
// reset it, and restarts the WAL itself before it grows large; Checkpoint runs a TRUNCATE that loses
// nothing.
//
// That no commit was missed is proven, not assumed: see spool.Position. Where the proof fails, the
// database is compared with a map of page checksums and the pages that differ are captured, with a
// counted Reason.
//
// The package knows nothing of replicas: the code that ships the Spool's segments releases them.
package capture
