// Package doctor finds what is wrong or risky about a database, its directory, the processes
// that use it and its replicas, and names the exact cure.
//
// Reading order: the catalogue here, facts.go (what is known, as plain values),
// the checks (file.go, wal.go, process.go, replica.go: pure functions from facts
// to findings), gather.go (facts of a real database), probe.go (facts of a
// real replica), settings.go (what to write into an application).
//
// Gathering never harms the application: it creates no file, holds no lock except for one
// read of the schema, and never waits for a lock.
package doctor

import (
	"cmp"
	"slices"
)

// Severity says how soon somebody should act on a finding.
type Severity string

// The severities. A note is worth knowing but not a fault: it does not change the exit code.
const (
	Critical Severity = "critical" // data is lost or unprotected, or sqlwatch cannot work
	Warning  Severity = "warning"  // it works now, but will not always
	Note     Severity = "note"
)

// Finding is one thing found: what it is, why it matters, what to do.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // the database's name, and the replica's after a space
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Cure     string   `json:"cure"` // commands and settings, ready to be copied
}

// check looks at the facts for one fault; nothing found is an empty result.
type check func(Facts) []Finding

// checks are run in this order over each database's facts.
var checks = []check{
	missing, unreadable, notDatabase, emptyFile, // the others need a database
	journalMode, walResetBug, oldEngines, pageChecksums, networkFilesystem, volatileFilesystem, overlayFilesystem,
	readOnlyFilesystem,
	foreignOwner, runningAsRoot, sideFileOwner, fileMode, directoryMode, hardLinks, symbolicLink, diskFree,
	walSize, autocheckpoint, pinnedReader, longWriter, exclusiveLocking, unusableIndex, leftBehind, schemaUnreadable,
	litestreamRunning, litestreamLeftovers, twoDaemons, tooManyProcesses, oldDeployment, overlappingDeployments,
	foreignProcess, hiddenProcesses, unexamined,
	replicas,
}

// Diagnose returns the findings about a database, the worst first.
func Diagnose(f Facts) []Finding {
	var all []Finding
	for _, check := range checks {
		for _, found := range check(f) {
			found.Subject = joinSubject(f.Name, found.Subject)
			all = append(all, found)
		}
	}
	Sort(all)
	return all
}

// DiagnoseHost returns the findings about the state directory and the configuration.
func DiagnoseHost(h Host) []Finding {
	var all []Finding
	for _, check := range []func(Host) []Finding{stateDirMissing, stateDirMode, stateDirVolatile,
		stateDirSpace, leftOvers, configuration} {
		all = append(all, check(h)...)
	}
	Sort(all)
	return all
}

// Sort puts the worst findings first and keeps the order of equal ones.
func Sort(all []Finding) {
	rank := []Severity{Critical, Warning, Note}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Compare(slices.Index(rank, a.Severity), slices.Index(rank, b.Severity))
	})
}

// Faults returns how many findings are more than notes.
func Faults(all []Finding) (n int) {
	for _, f := range all {
		if f.Severity != Note {
			n++
		}
	}
	return n
}

func joinSubject(database, part string) string {
	if part == "" {
		return database
	}
	return database + " " + part
}

// one is a check's result with a single finding.
func one(id string, s Severity, what, why, cure string) []Finding {
	return []Finding{{ID: id, Severity: s, What: what, Why: why, Cure: cure}}
}
