// What the tests share: a server that answers by script in Hookline's place (for what a real one rarely does), and uploads to send.

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const token = "hk_not-to-be-seen-anywhere"

// Request is what the scripted Hookline got.
type Request struct {
	Path   string
	Header http.Header
	Body   string
}

// Scripted answers with each of its handlers in turn, and with the last one from then on.
type Scripted struct {
	mutex    sync.Mutex
	Requests []Request
}

// Bench is the service under test with its surroundings.
type Bench struct {
	*Scripted
	URL  string
	Root string
	mu   sync.Mutex
	log  []string
}

func (b *Bench) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprint(b.log)
}

// Start serves uploads over a fresh storage, with a Hookline that answers as told.
func start(t *testing.T, answers ...http.HandlerFunc) *Bench {
	t.Helper()
	scripted := &Scripted{}
	remote := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("the request broke off: %v", err)
		}
		scripted.mutex.Lock()
		turn := len(scripted.Requests)
		scripted.Requests = append(scripted.Requests, Request{r.URL.Path, r.Header, string(body)})
		scripted.mutex.Unlock()
		if turn >= len(answers) {
			turn = len(answers) - 1
		}
		answers[turn](w, r)
	}))
	t.Cleanup(remote.Close)
	bench := &Bench{Scripted: scripted, Root: t.TempDir()}
	storage, err := OpenStorage(bench.Root)
	if err != nil {
		t.Fatal(err)
	}
	hookline, err := NewHookline(remote.URL+"/", token)
	if err != nil {
		t.Fatal(err)
	}
	hookline.Pauses = []time.Duration{time.Millisecond, time.Millisecond}
	uploads := NewUploads(storage, hookline, func(line Line) {
		text, err := json.Marshal(line)
		if err != nil {
			t.Error(err)
		}
		bench.mu.Lock()
		bench.log = append(bench.log, string(text))
		bench.mu.Unlock()
	})
	uploads.Limit = 1 << 20
	server := httptest.NewServer(uploads.Routes())
	t.Cleanup(server.Close)
	bench.URL = server.URL
	return bench
}

func says(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func hangsUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Part is one part of a form; a file if it has a name.
type Part struct{ Field, Filename, Type, Value string }

func form(t *testing.T, parts ...Part) (contentType string, body *bytes.Buffer) {
	t.Helper()
	body = &bytes.Buffer{}
	writer := multipart.NewWriter(body)
	for _, part := range parts {
		header := textproto.MIMEHeader{}
		header.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"`, part.Field))
		if part.Filename != "" {
			header.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"; filename="%s"`, part.Field, part.Filename))
		}
		if part.Type != "" {
			header.Set("Content-Type", part.Type)
		}
		w, err := writer.CreatePart(header)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, part.Value)
	}
	writer.Close()
	return writer.FormDataContentType(), body
}

// Reply is an answer of the service that has come whole.
type Reply struct {
	Status int
	Type   string
	Body   string
	Line   Line
}

func (b *Bench) post(t *testing.T, path string, headers http.Header, parts ...Part) Reply {
	t.Helper()
	kind, body := form(t, parts...)
	request, err := http.NewRequest(http.MethodPost, b.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for name := range headers {
		request.Header.Set(name, headers.Get(name))
	}
	request.Header.Set("Content-Type", kind)
	return do(t, request)
}

func do(t *testing.T, request *http.Request) Reply {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	reply := Reply{Status: response.StatusCode, Type: response.Header.Get("Content-Type"), Body: string(text)}
	if err := json.Unmarshal(text, &reply.Line); err != nil {
		t.Fatalf("the answer is not JSON: %s", text)
	}
	return reply
}

// Files are the paths of everything in the storage, whether it has its place or not.
func (b *Bench) files(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.Walk(b.Root, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			relative, _ := filepath.Rel(b.Root, path)
			found = append(found, filepath.ToSlash(relative))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
