// The command: its probe, its address, its variables.

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func newServer(t *testing.T, uploads *Uploads) string {
	t.Helper()
	server := httptest.NewServer(uploads.Routes())
	t.Cleanup(server.Close)
	return server.URL
}

func TestTheProbeTellsAServiceThatAnswersFromOneThatDoesNot(t *testing.T) {
	bench := start(t, says(201, created))
	address := strings.TrimPrefix(bench.URL, "http://")
	if code := health(address); code != 0 {
		t.Errorf("%s: %d", address, code)
	}
	// As the image has it: all addresses of the container.
	if code := health(strings.Replace(address, "127.0.0.1", "", 1)); code != 0 {
		t.Errorf("without a host: %d", code)
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	address = strings.TrimPrefix(broken.URL, "http://")
	if code := health(address); code != 1 {
		t.Errorf("a service that answers 500: %d", code)
	}
	broken.Close()
	for _, address := range []string{address, "nonsense"} {
		if code := health(address); code != 1 {
			t.Errorf("%s: %d", address, code)
		}
	}
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	for _, address := range []string{"", "auth-service:3000", "ftp://x", "http://", "http://user:secret@x"} {
		if _, err := NewHookline(address, ""); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "HOOKLINE_URL") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestAnEmptyVariableCountsAsUnset(t *testing.T) {
	t.Setenv("STORAGE", " ")
	if value := setting("STORAGE", "./storage"); value != "./storage" {
		t.Error(value)
	}
	t.Setenv("STORAGE", "/data")
	if value := setting("STORAGE", "./storage"); value != "/data" {
		t.Error(value)
	}
}
