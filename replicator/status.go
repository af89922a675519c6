package replicator

import "github.com/sqlwatch/sqlwatch/replicator/progress"

// ReplicaStatus is what is known about one replica without asking it.
type ReplicaStatus = progress.Status
