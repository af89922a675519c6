package lineage

// Evidence is what is known about a replica by who wants to write to it, and what
// is known about that one.
type Evidence struct {
	Empty  bool // the replica holds no file
	Named  bool // it names a lineage
	Leased bool // it has a lease: sqlwatch wrote to it

	Mine    bool // the lineage is the one in our state directory
	Was     bool // it came after the one in our state directory, because a person said so elsewhere
	Last    bool // our state directory remembers the replica's lease: nobody wrote to it since we did
	Holds   bool // our state directory knows the state at the replica's tip, or one beyond
	Equal   bool // the database is, or was when we began, what the replica's tip is, by its checksum
	Noted   bool // restore made this very file, of this lineage's tip
	Same    bool // the last writer replicated this very file: the same inode, made in the same instant
	Adopted bool // a person said so
}

// Verdict says what follows from evidence.
type Verdict string

// The verdicts. The first three let write.
const (
	Begin    Verdict = "begin"    // nothing is there: a lineage begins
	Continue Verdict = "continue" // the lineage goes on
	Succeed  Verdict = "succeed"  // another lineage follows, because a person said so
	Diverged Verdict = "diverged" // it is our lineage, and another writer went on with it
	Foreign  Verdict = "foreign"  // another database's
	Stranger Verdict = "stranger" // another program's files
)

// Writes reports whether the replica may be written to.
func (v Verdict) Writes() bool { return v == Begin || v == Continue || v == Succeed }

// Judge decides. It is pure.
func Judge(e Evidence) Verdict {
	switch {
	case e.Empty && (!e.Named || e.Mine || e.Last):
		return Begin
	case e.Last && (e.Mine || !e.Named), e.Holds && (e.Mine || !e.Named):
		return Continue
	case e.Equal, e.Noted, e.Same && !e.Was:
		return Continue
	case e.Adopted && !e.Named && !e.Leased:
		return Continue // another program's chain goes on
	case e.Adopted:
		return Succeed
	case !e.Named && !e.Leased:
		return Stranger
	case e.Mine, e.Was:
		return Diverged
	}
	return Foreign
}
