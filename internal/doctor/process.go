package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

func (p Process) name() string {
	if p.PID <= 0 {
		return "a process that is not visible here"
	}
	return fmt.Sprintf("%s (pid %d)", show.Text(p.Command), p.PID)
}

// isSqlwatch recognizes our own daemon by the package it was built from, or by its command.
func (p Process) isSqlwatch() bool {
	return p.Command == "sqlwatch" || strings.HasPrefix(p.Program, "github.com/sqlwatch/sqlwatch/cmd")
}

func names(all []Process) string {
	var out []string
	for i, p := range all {
		if i == 8 {
			out = append(out, fmt.Sprintf("%d more", len(all)-i))
			break
		}
		out = append(out, fmt.Sprintf("%s, %s old", p.name(), p.Age.Round(time.Second)))
	}
	return strings.Join(out, "; ")
}

func litestreamRunning(f Facts) []Finding {
	l := f.Litestream
	if l.Process == nil {
		return nil
	}
	severity, why := Warning, "two checkpointers disturb each other: after a checkpoint that is not its own, "+
		"Litestream takes a snapshot of the whole database"
	if len(f.Replicas) > 0 {
		severity, why = Critical, why+", and both programs replicate it"
	}
	return one("two-replicators", severity, fmt.Sprintf("%s has this database open", l.Process.name()), why,
		"keep one of them: systemctl disable --now litestream, then sqlwatch import /etc/litestream.yml continues its "+
			"replicas; or remove replicate_to and checkpoint policies here")
}

// twoDaemons finds a second sqlwatch. Each daemon has a state directory of its own, so two of
// them do not know of each other.
func twoDaemons(f Facts) []Finding {
	var ours []Process
	for _, p := range f.Processes {
		if p.isSqlwatch() {
			ours = append(ours, p)
		}
	}
	if len(ours) < 2 {
		return nil
	}
	return one("two-sqlwatch", Critical, "several sqlwatch processes have this database open: "+names(ours),
		"each holds the WAL for its own capture, and their checkpoints interfere: the WAL grows, and continuity is lost "+
			"again and again",
		"keep only one: pgrep -a sqlwatch, then stop the others")
}

func litestreamLeftovers(f Facts) []Finding {
	l := f.Litestream
	if l.Process != nil {
		return nil
	}
	var traces []string
	if len(l.Tables) > 0 {
		traces = append(traces, "tables "+strings.Join(l.Tables, ", "))
	}
	if len(l.Dirs) > 0 {
		traces = append(traces, "directory "+strings.Join(l.Dirs, ", "))
	}
	if len(traces) == 0 {
		return nil
	}
	severity, what := Note, "Litestream has been used here: "+strings.Join(traces, "; ")
	if l.Elsewhere {
		severity, what = Warning, what+"; a Litestream runs on this machine, and this user cannot see which files it has open"
	}
	cures := []string{"make sure that it does not run: pgrep -a litestream"}
	if len(l.Dirs) > 0 {
		cures = append(cures, "rm -r "+show.Quote(l.Dirs[0])+" if Litestream will not be used again")
	}
	if len(l.Tables) > 0 {
		cures = append(cures, "the tables do no harm (to remove them: "+dropTables(l.Tables)+")")
	}
	return one("litestream-traces", severity, what, "if it still runs somewhere, two replicators work on one database",
		strings.Join(cures, "; "))
}

func schemaUnreadable(f Facts) []Finding {
	switch {
	case !f.readable() || f.Litestream.TablesErr == "":
		return nil
	case f.File.Encrypted:
		return one("schema-unreadable", Warning, "the database is encrypted behind a plain header",
			"nothing of it can be read without its key: it can be measured, but neither checkpointed nor replicated",
			"take replicate_to out of its block, and back it up by its application, which has the key")
	}
	return one("schema-unreadable", Warning, "the schema cannot be read: "+f.Litestream.TablesErr,
		"it may be corrupt, or encrypted behind a plain header (SQLCipher's cipher_plaintext_header_size), which "+
			"cannot be told apart without its key; it is unknown whether Litestream left tables in it",
		fmt.Sprintf("ask SQLite itself: sqlite3 %s 'PRAGMA integrity_check', or the application, if it has a key; if it is "+
			"corrupt, restore it: sqlwatch restore", show.Quote(f.Real)))
}

func dropTables(tables []string) string {
	var out []string
	for _, t := range tables {
		out = append(out, "DROP TABLE "+t+";")
	}
	return strings.Join(out, " ")
}

func tooManyProcesses(f Facts) []Finding {
	all := slices.DeleteFunc(slices.Clone(f.Processes), Process.isSqlwatch)
	if f.Expected == 0 || len(all) <= f.Expected {
		return nil
	}
	return one("too-many-processes", Warning,
		fmt.Sprintf("%d processes other than sqlwatch have the database open, %d are expected: %s", len(all), f.Expected,
			names(all)),
		"an old release that still runs writes with old code; a forgotten shell keeps the WAL from shrinking",
		"stop the processes that should not be there: kill PID")
}

func oldDeployment(f Facts) []Finding {
	var old []Process
	for _, p := range f.Processes {
		if p.Deleted {
			old = append(old, p)
		}
	}
	if len(old) == 0 {
		return nil
	}
	return one("old-program", Warning, "a program that has been replaced on disk still has the database open: "+names(old),
		"it is an earlier release, or uses libraries from before an upgrade: two versions write to one schema",
		"restart it; with systemd: systemctl restart the unit that `systemctl status "+fmt.Sprint(old[0].PID)+"` shows")
}

// overlappingDeployments finds one command line running in several control
// groups: services or containers. Workers of one service share theirs.
func overlappingDeployments(f Facts) []Finding {
	groups := map[string][]string{}
	var lines []string
	for _, p := range f.Processes {
		if p.Cmdline == "" || p.Cgroup == "" {
			continue
		}
		if groups[p.Cmdline] == nil {
			lines = append(lines, p.Cmdline)
		}
		if !slices.Contains(groups[p.Cmdline], p.Cgroup) {
			groups[p.Cmdline] = append(groups[p.Cmdline], p.Cgroup)
		}
	}
	var found []Finding
	for _, line := range lines {
		if len(groups[line]) < 2 {
			continue
		}
		found = append(found, one("overlapping-deployments", Warning,
			fmt.Sprintf("%q runs in %d services or containers that share this database: %s", shorten(line), len(groups[line]),
				strings.Join(groups[line], ", ")),
			"if a rolling deploy starts the new release before the old one has ended, both write; old code meets migrations",
			"stop the old one before the new one starts (replicas: 1 with strategy Recreate; docker compose up "+
				"--force-recreate), or ignore this if it is intended")...)
	}
	return found
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func foreignProcess(f Facts) []Finding {
	var foreign []Process
	for _, p := range f.Processes {
		if p.UID > 0 && p.UID != f.File.UID {
			foreign = append(foreign, p)
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	return one("foreign-process", Warning, fmt.Sprintf("processes of another user than uid %d, the owner, have the "+
		"database open: %s", f.File.UID, names(foreign)),
		"if one of them opens it first, it owns -wal and -shm, and the application cannot write",
		"run all of them as one user; share with a group only if that user's umask keeps g+w")
}

func hiddenProcesses(f Facts) []Finding {
	if !f.Hidden {
		return nil
	}
	return one("hidden-processes", Note, "processes in another container (pid namespace) have the database open",
		"this works, but blocking processes are shown only as pid 0",
		"share the namespace to see them: docker run --pid=host; Kubernetes: "+
			"shareProcessNamespace: true")
}

func unexamined(f Facts) []Finding {
	if len(f.Unexamined) == 0 {
		return nil
	}
	return one("process-unexamined", Note, "reading the programs of these processes does not return: "+names(f.Unexamined),
		"the disk that they were started from does not answer, or this machine is very busy; which SQLite they have is not "+
			"known", fmt.Sprintf("look where it is: readlink /proc/%d/exe; then dmesg and cat /proc/mounts",
			f.Unexamined[0].PID))
}
