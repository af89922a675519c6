package asuser

import (
	"fmt"
	"io"
	"os"
)

// Work is what a program that was started as root is about to work on.
type Work struct {
	Databases []string
	Config    []string // the files of the configuration, which the owner must be able to read
	StateDir  string
	AdminDir  string   // of the admin socket
	Replicas  []string // directories of replicas
	Stderr    io.Writer
}

// Continue has a program that was started as root go on as the owner of its databases,
// before it opens any. Elsewhere, and for root's own databases, it does nothing. Where it
// succeeds it does not return: the program starts again.
func Continue(w Work) error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner, known, err := OwnerOf(w.Databases)
	if err != nil || !known || owner.UID == 0 {
		return err
	}
	for _, file := range w.Config {
		ok, err := Readable(owner, file)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the databases belong to uid %d, as whom sqlwatch works, and that user may not read %s: "+
				"chown %d %s (it may stay 0600), then start again", owner.UID, file, owner.UID, file)
		}
	}
	if err := HandOver(owner, w.StateDir, "lock"); err != nil {
		return err
	}
	if err := HandOver(owner, w.AdminDir, ""); err != nil {
		return err
	}
	for _, dir := range w.Replicas {
		if err := HandOver(owner, dir, "ltx"); err != nil {
			return err
		}
	}
	fmt.Fprintf(w.Stderr, "sqlwatch: the databases belong to uid %d; going on as that user\n", owner.UID)
	return Become(owner, append(os.Environ(), "STATE_DIRECTORY="+w.StateDir, "RUNTIME_DIRECTORY="+w.AdminDir))
}
