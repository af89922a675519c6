package plan

import (
	"fmt"
	"io"
)

// Write writes what would change, for a person.
func (changes Changes) Write(w io.Writer) error {
	for _, change := range changes.Configuration {
		if _, err := fmt.Fprintln(w, change); err != nil {
			return err
		}
	}
	if len(changes.Configuration) > 0 && len(changes.Policies) == 0 {
		_, err := fmt.Fprintln(w, "What the policies do now stays the same.")
		return err
	}
	if !changes.Daemon && len(changes.Policies) > 0 {
		_, err := fmt.Fprintln(w, "No daemon answers: what follows is one look at the files, without a past.")
		if err != nil {
			return err
		}
	}
	return Write(w, changes.Policies)
}

// Write writes what policies would do, for a person.
func Write(w io.Writer, plans []Policy) error {
	if len(plans) == 0 {
		_, err := fmt.Fprintln(w, "Nothing to do, nothing to change.")
		return err
	}
	for _, p := range plans {
		would := "nothing now"
		if p.Would != "" {
			would = "would " + p.Would + " now"
		}
		line := fmt.Sprintf("%s  %s: %s (%s): %s", p.DB, p.Policy, would, p.Phase, p.Reason)
		if p.Change != "" {
			line += " [" + p.Change + "]"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
