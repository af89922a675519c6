// Command history checks that sqlwatch loses nothing and invents nothing.
//
// An application in a process of its own keeps a ledger in SQLite and logs every commit. A
// nemesis kills and stops sqlwatch and the application. Meanwhile the checker restores (the
// latest state, a moment, a TXID) and judges each restore against the ledger's log. The checker
// imports nothing of sqlwatch, and both the application and the judge use another SQLite than
// sqlwatch does: build with
//
//	go build -tags libsqlite3,sqlite_serialize .
//
// so that the system's library is linked. The exit code is 0 if nothing bad was found, 1 if the
// run itself could not be carried out, and 2 after a bad restore or an error of the application.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "app" {
		os.Exit(applicationMain(os.Args[2:]))
	}
	if len(os.Args) == 3 && os.Args[1] == "clock" {
		path, err := clockOverlay(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, "history:", err)
			os.Exit(1)
		}
		fmt.Println(path)
		return
	}
	var o options
	flag.StringVar(&o.sqlwatch, "sqlwatch", "sqlwatch", "the program under test")
	flag.StringVar(&o.dir, "dir", "", "scratch directory (default: a new one in $TMPDIR, removed if all was good)")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "seed of the application and the nemesis")
	flag.DurationVar(&o.duration, "duration", time.Minute, "maximum duration")
	flag.IntVar(&o.kills, "kills", 0, "end after this many kill -9 of sqlwatch (0: no limit)")
	flag.StringVar(&o.killAt, "kill-at", "",
		"comma-separated system calls: kill sqlwatch with strace at the N-th of them, with N counting up")
	flag.DurationVar(&o.pause, "pause", 2*time.Millisecond, "the application's pause between transactions")
	flag.StringVar(&o.replica, "replica", "", "file with the HCL attributes of an S3 replica, instead of a directory")
	flag.StringVar(&o.url, "url", "", "the same replica as a URL for `sqlwatch restore`")
	flag.IntVar(&o.workers, "workers", 2, "how many restores run at a time")
	flag.StringVar(&o.only, "only", "", "comma-separated names of harms: do only these")
	flag.StringVar(&o.without, "without", "", "comma-separated names of harms and lives to leave out")
	flag.StringVar(&o.uplink, "uplink", "",
		"bandwidth of all uploads, such as 1MB (per second), with one snapshot after the other")
	flag.BoolVar(&o.alone, "alone", false, "run without sqlwatch: errors that the application has anyway")
	flag.StringVar(&o.clock, "clock", "",
		"file to write clock steps to, for a sqlwatch that reads it (see clock.go)")
	flag.BoolVar(&o.verbose, "v", false, "print every restore")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	bad, err := run(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	case bad > 0:
		os.Exit(2)
	}
}

// applicationMain is the main function of the other process, the application.
func applicationMain(args []string) int {
	set := flag.NewFlagSet("app", flag.ExitOnError)
	db := set.String("db", "", "database")
	log := set.String("log", "", "log of commits")
	seed := set.Uint64("seed", 1, "seed")
	how := set.String("life", "normal", "how the application uses SQLite")
	opening := set.Int("opening", 0, "commits before a first checkpoint and a pause")
	pause := set.Duration("pause", 0, "pause between transactions")
	if err := set.Parse(args); err != nil {
		return 1
	}
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends when the checker closes the pipe
		close(stop)
	}()
	var err error
	if l, known := lives[*how]; known {
		l.name = *how
		err = runApplication(*db, *log, l, *seed, *pause, *opening, stop)
	} else if *how == ofd {
		err = runOFD(*db, *log, *pause, stop)
	} else {
		err = fmt.Errorf("no such life: %s", *how)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "application:", err)
		return 1
	}
	return 0
}

type options struct {
	sqlwatch, dir, killAt, replica, url, only, without, clock, uplink string

	seed            uint64
	duration, pause time.Duration
	kills, workers  int
	verbose, alone  bool
}

// run starts the scene, lets nemesis and checker work, and ends with the final judgement.
func run(ctx context.Context, o options) (bad int, err error) {
	temporary := o.dir == ""
	if temporary {
		if o.dir, err = os.MkdirTemp("", "history"); err != nil {
			return 0, err
		}
	} else if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return 0, err
	}
	for _, path := range []*string{&o.sqlwatch, &o.dir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return 0, err
		}
	}
	fmt.Printf("history: seed %d, in %s\n", o.seed, o.dir)
	s, err := newScene(o)
	if err != nil {
		return 0, err
	}
	defer s.close()

	timed, cancel := context.WithTimeout(ctx, o.duration)
	defer cancel()
	if err := s.begin(timed); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- s.nemesis(timed, cancel) }()
	if o.uplink != "" {
		go s.snapshots(timed)
	}
	c := newChecker(s)
	if !o.alone {
		c.loop(timed)
	}
	if err := <-done; err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return 0, err
	}
	if ctx.Err() == nil && o.alone {
		s.stopApp(false)
		c.applicationErrors()
	} else if ctx.Err() == nil {
		c.final(ctx)
	}
	c.report()
	if temporary && len(c.bad) == 0 {
		s.unmount()
		return 0, os.RemoveAll(o.dir)
	}
	return len(c.bad), nil
}
