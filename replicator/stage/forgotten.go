package stage

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// restartFor is how long what a interrupted restore left waits for who asks again.
const restartFor = 7 * 24 * time.Hour

// stageNames are the names of stages for any output; see Open.
var stageNames = regexp.MustCompile(`^\..+\.sqlwatch-restore-[A-Z2-7]{26}$`)

// removeForgotten removes what interrupted restores to other files in a directory left and
// nobody came back for: stages of ours, not touched for a week, which no process has. It
// returns what it removed.
func removeForgotten(dir string, entries []os.DirEntry, now time.Time) (removed []string, err error) {
	for _, e := range entries {
		if !e.Type().IsRegular() || !stageNames.MatchString(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, serr := e.Info()
		if serr != nil || now.Sub(info.ModTime()) < restartFor || !private(info) {
			continue
		}
		f, serr := seize(path)
		if f == nil || serr != nil {
			continue // somebody is at work on it, or it is gone
		}
		if failed := errors.Join(remove(path), f.Close()); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		removed = append(removed, path)
	}
	return removed, err
}
