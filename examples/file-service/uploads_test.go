// Both ways of an upload, and everything that a client can get wrong.

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

const created = `{"jobId":"1","queueName":"document-processing","name":"process-document","state":"waiting","runId":"run_1"}`

var (
	report = Part{Field: "file", Filename: "report.pdf", Type: "application/pdf", Value: "%PDF-1.7 …"}
	alice  = Part{Field: "userId", Value: "alice"}
)

func TestAnUploadIsStoredInHooklinesLayoutAndTriggersTheWorkflow(t *testing.T) {
	for name, parts := range map[string][]Part{"user first": {alice, report}, "file first": {report, {Field: "note", Value: "…"}, alice}} {
		t.Run(name, func(t *testing.T) {
			bench := start(t, says(201, created))
			reply := bench.post(t, "/upload", nil, parts...)
			id, _ := reply.Line["documentId"].(string)
			if reply.Status != 202 || !regexp.MustCompile(`^doc_[0-9a-f]{24}$`).MatchString(id) || reply.Line["runId"] != "run_1" {
				t.Fatalf("%d %s", reply.Status, reply.Body)
			}
			if files := bench.files(t); !reflect.DeepEqual(files, []string{"documents/" + id + "/report.pdf"}) {
				t.Errorf("the storage holds %v", files)
			}
			if text, err := os.ReadFile(filepath.Join(bench.Root, "documents", id, "report.pdf")); err != nil || string(text) != report.Value {
				t.Errorf("the document reads %q, %v", text, err)
			}
			if !strings.Contains(bench.said(), id) {
				t.Errorf("the log does not tell of it: %s", bench.said())
			}
		})
	}
}

func TestTheTriggerIsTheOriginalsRequestWhateverTheTypeOfTheFile(t *testing.T) {
	for _, mime := range []string{"application/pdf", "", "application/octet-stream", "text/plain; charset=utf-8"} {
		t.Run(mime, func(t *testing.T) {
			bench := start(t, says(201, created))
			reply := bench.post(t, "/upload", nil, alice, Part{Field: "file", Filename: "a b.txt", Type: mime, Value: "hello"})
			if reply.Status != 202 || len(bench.Requests) != 1 {
				t.Fatalf("%d %s, %d requests", reply.Status, reply.Body, len(bench.Requests))
			}
			sent := bench.Requests[0]
			want := fmt.Sprintf(`{"documentId":"%s","userId":"alice","filename":"a b.txt","mimeType":"%s","fileSize":5}`, reply.Line["documentId"], mime)
			if sent.Path != "/api/jobs/document-processing" || sent.Body != want {
				t.Errorf("sent to %s: %s", sent.Path, sent.Body)
			}
			if kind := sent.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type: %s", kind)
			}
			if sent.Header.Get("Authorization") != "" || sent.Header.Get("Idempotency-Key") != "" {
				t.Errorf("the original sends neither a token nor a key: %v", sent.Header)
			}
		})
	}
}

func TestADocumentThatHooklineRefusesIsTakenAwayAndTheReasonPassedOn(t *testing.T) {
	problem := `{"detail":"the body does not fit: mimeType","errors":[{"path":"mimeType","message":"must be a media type"}]}`
	bench := start(t, says(422, problem))
	reply := bench.post(t, "/upload", nil, alice, report)
	if reply.Status != 422 || !strings.Contains(reply.Body, "mimeType: must be a media type") || reply.Type != "application/problem+json" {
		t.Errorf("%d %s %s", reply.Status, reply.Type, reply.Body)
	}
	if files := bench.files(t); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	bench = start(t, says(401, `{"detail":"a token is needed"}`))
	if reply := bench.post(t, "/upload", nil, alice, report); reply.Status != 502 || !strings.Contains(reply.Body, "a token is needed") {
		t.Errorf("our own fault was given to the caller: %d %s", reply.Status, reply.Body)
	}
}

func TestADocumentStaysWhereARunMayNeedIt(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{"answer lost": hangsUp, "store away": says(503, `{"detail":"the store does not answer"}`)} {
		t.Run(name, func(t *testing.T) {
			bench := start(t, answer)
			reply := bench.post(t, "/upload", nil, alice, report)
			if reply.Status != 502 || !strings.Contains(reply.Body, "is stored, but whether it is being processed is not known") {
				t.Errorf("%d %s", reply.Status, reply.Body)
			}
			if files := bench.files(t); len(files) != 1 || !strings.Contains(reply.Body, strings.Split(files[0], "/")[1]) {
				t.Errorf("the storage holds %v; the answer should name it: %s", files, reply.Body)
			}
			if len(bench.Requests) != 1 {
				t.Errorf("a call without a key was sent %d times", len(bench.Requests))
			}
		})
	}
}

func TestARelayRepeatsUnderOneKeyUntilHooklineAnswers(t *testing.T) {
	bench := start(t, hangsUp, says(503, `{}`), says(202, `{"runId":"run_1","workflow":"document-upload","status":"running","documentId":"doc_9"}`))
	named := report
	named.Filename = "Größe 5.pdf"
	reply := bench.post(t, "/relay", nil, alice, named)
	if reply.Status != 202 || reply.Line["documentId"] != "doc_9" || reply.Line["runId"] != "run_1" || len(bench.Requests) != 3 {
		t.Fatalf("%d %s after %d requests", reply.Status, reply.Body, len(bench.Requests))
	}
	key := bench.Requests[0].Header.Get("Idempotency-Key")
	for _, sent := range bench.Requests {
		if sent.Header.Get("Idempotency-Key") != key || len(key) != 64 || sent.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("headers: %v", sent.Header)
		}
		if !strings.Contains(sent.Body, report.Value) || !strings.Contains(sent.Body, "Größe 5.pdf") || !strings.Contains(sent.Body, "application/pdf") {
			t.Errorf("an attempt was not the whole form: %s", sent.Body)
		}
	}
	if files := bench.files(t); len(files) != 0 {
		t.Errorf("Hookline stores it, and yet here is left: %v", files)
	}
}

func TestARelaysKeyIsTheCallersOwnAndEachUsersOwn(t *testing.T) {
	bench := start(t, says(202, `{"runId":"run_1","documentId":"doc_9"}`))
	mine := http.Header{"Idempotency-Key": {"1"}}
	for _, user := range []string{"alice", "alice", "bob"} {
		bench.post(t, "/relay", mine, Part{Field: "userId", Value: user}, report)
	}
	bench.post(t, "/relay", nil, alice, report)
	bench.post(t, "/relay", nil, alice, report)
	var keys []string
	for _, sent := range bench.Requests {
		keys = append(keys, sent.Header.Get("Idempotency-Key"))
	}
	if keys[0] != keys[1] || keys[0] == keys[2] || keys[3] == keys[4] || keys[3] == keys[0] {
		t.Errorf("keys: %v", keys)
	}
}

func TestARelayGivesUpWhereRepeatingCannotHelp(t *testing.T) {
	cases := map[string]struct {
		answer http.HandlerFunc
		status int
		sent   int
	}{
		"refused":                {says(422, `{"detail":"no"}`), 422, 1},
		"another body":           {says(409, `{"detail":"the key was used for another body"}`), 409, 1},
		"our token is wrong":     {says(401, `{"detail":"no"}`), 502, 1},
		"still away":             {says(503, `{"detail":"the store does not answer"}`), 502, 3},
		"asked to wait too long": {says(503, `{"detail":"the store is full"}`, "Retry-After", "3600"), 502, 1},
		"does not answer":        {hangsUp, 502, 3},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			bench := start(t, c.answer)
			reply := bench.post(t, "/relay", nil, alice, report)
			if reply.Status != c.status || len(bench.Requests) != c.sent {
				t.Errorf("%d after %d requests: %s", reply.Status, len(bench.Requests), reply.Body)
			}
			if strings.Contains(reply.Body+bench.said(), token) {
				t.Error("the token was told")
			}
			if files := bench.files(t); len(files) != 0 {
				t.Errorf("left: %v", files)
			}
		})
	}
}

func TestInFlightIsWaitedFor(t *testing.T) {
	bench := start(t, says(409, `{"detail":"the same request is being answered"}`, "Retry-After", "1"), says(202, `{"runId":"run_1","documentId":"doc_9"}`))
	began := time.Now()
	if reply := bench.post(t, "/relay", nil, alice, report); reply.Status != 202 {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("came back after %v", waited)
	}
}

func TestWhatDoesNotFitIsRefusedAndLeavesNothing(t *testing.T) {
	cases := map[string]struct {
		parts  []Part
		status int
		reason string
	}{
		"no file":        {[]Part{alice}, 422, "file: is required"},
		"empty file":     {[]Part{alice, {Field: "file", Filename: "a.txt"}}, 422, "file: is empty"},
		"two files":      {[]Part{alice, report, report}, 422, "there are two"},
		"no user":        {[]Part{report}, 422, "userId: use 1 to 128"},
		"user a path":    {[]Part{report, {Field: "userId", Value: "../x"}}, 422, "userId: use 1 to 128"},
		"user dots":      {[]Part{report, {Field: "userId", Value: ".."}}, 422, "userId: use 1 to 128"},
		"user too long":  {[]Part{report, {Field: "userId", Value: strings.Repeat("a", 129)}}, 422, "userId: use 1 to 128"},
		"reserved name":  {[]Part{alice, {Field: "file", Filename: ".hookline", Value: "x"}}, 422, "reserved"},
		"too large":      {[]Part{alice, {Field: "file", Filename: "a.txt", Value: strings.Repeat("a", 1<<20+1)}}, 413, "more than 1048576 bytes"},
		"much too large": {[]Part{alice, {Field: "file", Filename: "a.txt", Value: strings.Repeat("a", 1<<20+128<<10)}}, 413, "more than"},
	}
	for name, c := range cases {
		for _, path := range []string{"/upload", "/relay"} {
			t.Run(name+path, func(t *testing.T) {
				bench := start(t, says(201, created))
				reply := bench.post(t, path, nil, c.parts...)
				if reply.Status != c.status || !strings.Contains(reply.Body, c.reason) {
					t.Errorf("%d %s", reply.Status, reply.Body)
				}
				if len(bench.Requests) != 0 || len(bench.files(t)) != 0 {
					t.Errorf("%d requests, files %v", len(bench.Requests), bench.files(t))
				}
			})
		}
	}
}

func TestWhatIsNoUpload(t *testing.T) {
	bench := start(t, says(201, created))
	request, _ := http.NewRequest(http.MethodPost, bench.URL+"/upload", strings.NewReader("{}"))
	request.Header.Set("Content-Type", "application/json")
	if reply := do(t, request); reply.Status != 415 || !strings.Contains(reply.Body, "multipart/form-data") {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
	request, _ = http.NewRequest(http.MethodGet, bench.URL+"/relay", nil)
	if reply := do(t, request); reply.Status != 405 {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
}

func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	bench := start(t, says(201, created))
	kind, body := form(t, alice, report)
	connection, err := net.Dial("tcp", strings.TrimPrefix(bench.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", kind, body.Len()+1000)
	connection.Write(body.Bytes()[:body.Len()-20])
	// Half-closed, so that the answer can still come: it is the signal that all has been dealt with.
	connection.(*net.TCPConn).CloseWrite()
	answered := make([]byte, 1024)
	n, err := connection.Read(answered)
	if err != nil || !strings.Contains(string(answered[:n]), "400 Bad Request") || !strings.Contains(string(answered[:n]), "broke off") {
		t.Errorf("%q %v", answered[:n], err)
	}
	if files := bench.files(t); len(files) != 0 || len(bench.Requests) != 0 {
		t.Errorf("left: %v", files)
	}
}

func TestARelayWithoutATokenSaysWhatToSet(t *testing.T) {
	storage, err := OpenStorage(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	hookline, err := NewHookline("http://127.0.0.1:1", "")
	if err != nil {
		t.Fatal(err)
	}
	bench := &Bench{}
	server := newServer(t, NewUploads(storage, hookline, func(Line) {}))
	bench.URL = server
	if reply := bench.post(t, "/relay", nil, alice, report); reply.Status != 503 || !strings.Contains(reply.Body, "HOOKLINE_TOKEN") {
		t.Errorf("%d %s", reply.Status, reply.Body)
	}
}
