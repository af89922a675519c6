package again

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// lookMarker is the variable that tells a process that it has nothing to do but to look at the
// files of its arguments: it holds its parent's number.
const lookMarker = "SQLWATCH_LOOK"

// Silent returns those of the paths that are on disks that do not answer within a time. They are
// looked at in a process of its own: one of whose threads waits for a disk cannot go on as another
// user. Where none can be started, or of a program that has not called Enter, none is silent.
func Silent(paths []string, within time.Duration) (silent []string, err error) {
	if !entered.Load() || len(paths) == 0 {
		return nil, nil
	}
	program, err := Self()
	if err != nil {
		return nil, nil
	}
	answers, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil
	}
	defer answers.Close()
	cmd := exec.Command(program, paths...)
	cmd.Args[0] = os.Args[0] // by which a program with several names knows what it is
	cmd.Env = append(os.Environ(), lookMarker+"="+strconv.Itoa(os.Getpid()))
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, nil
	}
	defer leave(cmd)
	if err := answers.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	answered := map[string]bool{}
	lines := bufio.NewScanner(answers)
	for lines.Scan() {
		if i, err := strconv.Atoi(lines.Text()); err == nil && i >= 0 && i < len(paths) {
			answered[paths[i]] = true
		}
	}
	if !os.IsTimeout(lines.Err()) {
		return nil, lines.Err() // it has looked at all, or was ended: that says nothing about disks
	}
	for _, path := range paths {
		if !answered[path] {
			silent = append(silent, path)
		}
	}
	return silent, nil
}

// look says which of the files of the arguments have answered, whatever they did, and ends.
func look() {
	answers := os.NewFile(codeFD, "answers")
	looked := make(chan int)
	for i, path := range os.Args[1:] {
		go func() {
			_, _ = os.Stat(path)
			looked <- i
		}()
	}
	for range os.Args[1:] {
		fmt.Fprintln(answers, <-looked)
	}
	os.Exit(0)
}
