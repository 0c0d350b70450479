// Command file-service takes uploads and has Hookline process them, in two ways:
//
//	POST /upload   stores the file in the storage that it shares with Hookline and posts the job, without a token (as the original service does)
//	POST /relay    hands the file to Hookline's POST /api/documents, with a token and an Idempotency-Key
//
// Standard library only. README.md says how to run it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// drain is how long uploads may go on after SIGTERM.
const drain = 25 * time.Second

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on; port 0 takes any free one")
	probe := flag.Bool("health", false, "ask the service at -listen whether it answers, and exit 0 or 1 (for images that have no curl)")
	flag.Parse()
	if *probe {
		os.Exit(health(*listen))
	}
	if err := serve(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "file-service:", err)
		os.Exit(1)
	}
}

func serve(address string) error {
	storage, err := OpenStorage(setting("STORAGE", "./storage"))
	if err != nil {
		return err
	}
	hookline, err := NewHookline(setting("HOOKLINE_URL", "http://127.0.0.1:3000"), os.Getenv("HOOKLINE_TOKEN"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: NewUploads(storage, hookline, say).Routes(),
		// No limit for a whole request: 100 MiB over a slow line take their time.
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	drained := make(chan error, 1)
	go func() {
		<-ended.Done()
		deadline, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		drained <- server.Shutdown(deadline)
	}()
	say(Line{"listening": "http://" + listener.Addr().String()})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

// health returns the exit code: 0 if the service at this address answers.
func health(address string) int {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "file-service: -listen:", err)
		return 1
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	client := &http.Client{Timeout: 3 * time.Second}
	response, err := client.Get("http://" + net.JoinHostPort(host, port) + "/health")
	if err != nil {
		fmt.Fprintln(os.Stderr, "file-service:", err)
		return 1
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, "file-service: it answered", response.Status)
		return 1
	}
	return 0
}

// setting is the environment variable of this name, or what stands in for it; an empty one counts as unset.
func setting(name, otherwise string) string {
	if value := strings.TrimSpace(os.Getenv(name)); value != "" {
		return value
	}
	return otherwise
}

// Line is one line of the log.
type Line map[string]any

// say writes a line of JSON to standard output.
func say(line Line) {
	text, err := json.Marshal(line)
	if err != nil {
		text = []byte(fmt.Sprintf(`{"error":"a line of the log cannot be written: %T"}`, err))
	}
	fmt.Println(string(text))
}
