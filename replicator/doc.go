// Package replicator keeps replicas of a database: it runs a capture, uploads what that
// spools, and keeps each replica small and proven with compaction, snapshots,
// retention and restore drills. A lease keeps two writers of one replica apart.
package replicator
