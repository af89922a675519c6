package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/asuser"
	"github.com/sqlwatch/sqlwatch/internal/config"
)

// workAsOwner has a program that was started as root go on as the owner of its
// databases, before it opens any. Elsewhere, and for root's own databases, it does
// nothing. Where it succeeds it does not return: the program starts again.
func workAsOwner(env *environment, cfg *config.Config) error {
	if os.Geteuid() != 0 {
		return nil
	}
	targets, _ := cfg.Expand() // what is left out is reported when the others are opened
	var paths []string
	for _, t := range targets {
		paths = append(paths, t.Path)
	}
	owner, known, err := asuser.OwnerOf(paths)
	if err != nil || !known || owner.UID == 0 {
		return err
	}
	if err := readableConfig(env, owner); err != nil {
		return err
	}
	admin := filepath.Dir(strings.TrimPrefix(cfg.Server.Admin, "unix://"))
	if err := asuser.HandOver(owner, cfg.Server.StateDir, "lock"); err != nil {
		return err
	}
	if err := asuser.HandOver(owner, admin, ""); err != nil {
		return err
	}
	for _, t := range targets {
		for _, r := range t.Replicas {
			if r.Type != "file" {
				continue
			}
			if err := asuser.HandOver(owner, r.File.Dir, "ltx"); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(env.Stderr, "sqlwatch: the databases belong to uid %d; going on as that user\n", owner.UID)
	return asuser.Become(owner, append(os.Environ(), "STATE_DIRECTORY="+cfg.Server.StateDir, "RUNTIME_DIRECTORY="+admin))
}

// readableConfig says what to do where the configuration is root's alone.
func readableConfig(env *environment, owner asuser.User) error {
	path, err := configPath(env)
	if err != nil {
		return nil // there is none
	}
	files := []string{path}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.hcl")); err != nil {
			return err
		}
	}
	for _, file := range files {
		ok, err := asuser.Readable(owner, file)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the databases belong to uid %d, as whom sqlwatch works, and that user may not read %s: "+
				"chown %d %s (it may stay 0600), then start again", owner.UID, file, owner.UID, file)
		}
	}
	return nil
}
