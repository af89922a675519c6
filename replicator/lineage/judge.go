package lineage

// Evidence is what a writer knows about a replica that it wants to write to, and about
// itself.
type Evidence struct {
	Empty  bool // the replica holds no file
	Named  bool // it names a lineage
	Leased bool // it has a lease: sqlwatch wrote to it

	Mine    bool // its lineage is the one in our state directory
	Was     bool // its lineage succeeded the one in our state directory, by --adopt on another host
	Last    bool // our state directory remembers the replica's lease: nobody wrote to it since we did
	Holds   bool // our state directory knows the state at the replica's tip, or a later one
	Equal   bool // a state captured here has the checksum of the replica's tip
	Noted   bool // restore made this file from the tip of this lineage
	Same    bool // the last writer replicated this same file: same inode, same birth time
	Adopted bool // a person said --adopt
}

// Verdict says whether, and as what, a writer may write to a replica.
type Verdict string

// The verdicts. The first three permit writing.
const (
	Begin    Verdict = "begin"    // the replica is empty: our lineage begins
	Continue Verdict = "continue" // we continue its lineage
	Succeed  Verdict = "succeed"  // our lineage succeeds another one, because a person said so
	Diverged Verdict = "diverged" // it is our lineage, but another writer continued it
	Foreign  Verdict = "foreign"  // it holds another database's history
	Stranger Verdict = "stranger" // it holds another program's files
)

// Writes reports whether the replica may be written to.
func (v Verdict) Writes() bool { return v == Begin || v == Continue || v == Succeed }

// Judge returns the verdict that follows from e.
func Judge(e Evidence) Verdict {
	switch {
	case e.Empty && (!e.Named || e.Mine || e.Last):
		return Begin
	case e.Last && (e.Mine || !e.Named), e.Holds && (e.Mine || !e.Named):
		return Continue
	case e.Equal, e.Noted, e.Same && !e.Was:
		return Continue
	case e.Adopted && !e.Named && !e.Leased:
		return Continue // we continue another program's chain
	case e.Adopted:
		return Succeed
	case !e.Named && !e.Leased:
		return Stranger
	case e.Mine, e.Was:
		return Diverged
	}
	return Foreign
}
