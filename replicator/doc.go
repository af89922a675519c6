// Package replicator keeps replicas of a database: it runs a capture, uploads the segments that
// capture spools, and keeps each replica small and proven with compaction, snapshots,
// retention and restore drills. A lease prevents two hosts from writing to one replica.
package replicator
