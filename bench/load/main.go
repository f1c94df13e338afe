// Command load is the benchmark's load client. It takes a plan as JSON and prints one result as JSON.
//
//	load run     plan on stdin, one line; see Plan. Prints {"phase":"ready"} when the lines are open and warm, waits for a
//	             line on stdin, runs, and prints {"phase":"result",…}; the lines are closed after another line, when
//	             the server's clocks were read. With `hold` it prints {"phase":"held"} when all
//	             workers hold what they were asked to hold, and waits for another line.
//	load serve   a gRPC server that answers StreamTurn with prebuilt messages: the client's own ceiling is measured on it
//	load sink    an OTLP receiver that counts and forgets
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
)

func main() {
	debug.SetGCPercent(400)
	command := "run"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	var err error
	switch command {
	case "run":
		err = runFromStdin()
	case "serve":
		err = serveTurns(os.Args[2:])
	case "sink":
		err = serveSink()
	default:
		err = fmt.Errorf("no command %q: run, serve, sink", command)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func runFromStdin() error {
	stdin := bufio.NewReader(os.Stdin)
	line, err := stdin.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	plan, err := parsePlan(line)
	if err != nil {
		return err
	}
	say := func(message any) {
		text, _ := json.Marshal(message)
		fmt.Println(string(text))
	}
	wait := func() { _, _ = stdin.ReadBytes('\n') }
	return run(plan, say, wait)
}
