// The client of Hookline: the original's call, and the upload that may be repeated.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	jobTimeout   = 10 * time.Second
	relayTimeout = 5 * time.Minute
	// answerLimit is more than any answer of Hookline's has.
	answerLimit = 1 << 20
	// longestPause is how long a caller is kept waiting for another attempt, whatever Retry-After says.
	longestPause = 30 * time.Second
)

// ErrNoToken is the fault of a relay that was not given HOOKLINE_TOKEN.
var ErrNoToken = errors.New("HOOKLINE_TOKEN is not set: give it one of auth.api_keys (hk_…) or a token of the role service")

// ErrAway is the fault of a Hookline that did not answer, or not whole.
var ErrAway = errors.New("Hookline did not answer")

// Refusal is an answer of Hookline's other than 2xx.
type Refusal struct {
	Status     int
	Detail     string
	RetryAfter time.Duration
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("Hookline answered %d: %s", r.Status, r.Detail)
}

// Certain says that Hookline did nothing and would do nothing the next time either.
func (r *Refusal) Certain() bool {
	return r.Status >= 400 && r.Status < 500 && !r.passing()
}

// passing says that the same request may do later.
func (r *Refusal) passing() bool {
	return r.Status >= 500 || r.Status == http.StatusTooManyRequests || r.Status == http.StatusConflict && r.RetryAfter > 0
}

// Job is the body of POST /api/jobs/document-processing, in the original's order.
type Job struct {
	DocumentID string `json:"documentId"`
	UserID     string `json:"userId"`
	Filename   string `json:"filename"`
	MimeType   string `json:"mimeType"`
	FileSize   int64  `json:"fileSize"`
}

// Started is what Hookline's answers have in common.
type Started struct {
	DocumentID string `json:"documentId"`
	JobID      string `json:"jobId,omitempty"`
	RunID      string `json:"runId,omitempty"`
}

// Document is a file on its way to POST /api/documents.
type Document struct {
	UserID   string
	Filename string
	MimeType string
	Size     int64
	Open     func() io.Reader
}

// Hookline is a client of the two routes that this service needs.
type Hookline struct {
	url    string
	token  string
	client *http.Client
	// Pauses are the waits between attempts at a relay.
	Pauses []time.Duration
}

// NewHookline checks the address; the token is needed for Relay only.
func NewHookline(address, token string) (*Hookline, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.User != nil {
		return nil, errors.New("HOOKLINE_URL should be http(s)://host[:port], without a user name")
	}
	pauses := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second}
	return &Hookline{url: strings.TrimRight(address, "/"), token: token, client: &http.Client{}, Pauses: pauses}, nil
}

// Trigger posts the job as the original's UploadDocument does: JSON, no token, no key, once. Without a key, a second attempt after a lost
// answer could start a second run; Relay is the way that may be repeated.
func (h *Hookline) Trigger(ctx context.Context, job Job) (*Started, error) {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	body, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/api/jobs/document-processing", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	started, err := h.send(request)
	if err != nil {
		return nil, err
	}
	started.DocumentID = job.DocumentID
	return started, nil
}

// Relay uploads the document. The same key on every attempt makes it safe to repeat one whose answer was lost.
func (h *Hookline) Relay(ctx context.Context, document Document, key string) (*Started, error) {
	if h.token == "" {
		return nil, ErrNoToken
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	for attempt := 0; ; attempt++ {
		started, err := h.upload(ctx, document, key)
		var refusal *Refusal
		if err == nil || errors.As(err, &refusal) && !refusal.passing() || attempt == len(h.Pauses) {
			return started, err
		}
		pause := h.Pauses[attempt]
		if refusal != nil && refusal.RetryAfter > pause {
			pause = refusal.RetryAfter
		}
		if pause > longestPause {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (h *Hookline) upload(ctx context.Context, document Document, key string) (*Started, error) {
	// The file itself is not copied into memory: it goes between the two ends of the form.
	var form bytes.Buffer
	writer := multipart.NewWriter(&form)
	if err := writer.WriteField("userId", document.UserID); err != nil {
		return nil, err
	}
	header := textproto.MIMEHeader{}
	header.Set("Content-Disposition", fmt.Sprintf(`form-data; name="file"; filename="%s"`, strings.ReplaceAll(document.Filename, `"`, `\"`)))
	if document.MimeType != "" {
		header.Set("Content-Type", document.MimeType)
	}
	if _, err := writer.CreatePart(header); err != nil {
		return nil, err
	}
	begin := append([]byte(nil), form.Bytes()...)
	form.Reset()
	if err := writer.Close(); err != nil {
		return nil, err
	}
	body := io.MultiReader(bytes.NewReader(begin), document.Open(), bytes.NewReader(form.Bytes()))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/api/documents", body)
	if err != nil {
		return nil, err
	}
	request.ContentLength = int64(len(begin)) + document.Size + int64(form.Len())
	request.Header.Set("Content-Type", writer.FormDataContentType())
	request.Header.Set("Authorization", "Bearer "+h.token)
	request.Header.Set("Idempotency-Key", key)
	return h.send(request)
}

func (h *Hookline) send(request *http.Request) (*Started, error) {
	response, err := h.client.Do(request)
	if err != nil {
		return nil, away(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return nil, away(err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, refusal(response, body)
	}
	var started Started
	if err := json.Unmarshal(body, &started); err != nil {
		return nil, away(err)
	}
	return &started, nil
}

// away keeps the cause as text only: there is nothing in it for a program to act on.
func away(cause error) error {
	return fmt.Errorf("%w: %v", ErrAway, cause)
}

// refusal reads Hookline's problem+json, field by field where it says which do not fit.
func refusal(response *http.Response, body []byte) *Refusal {
	var problem struct {
		Detail string
		Errors []struct{ Path, Message string }
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		problem.Detail = response.Status
	}
	for _, fault := range problem.Errors {
		problem.Detail += fmt.Sprintf("; %s: %s", fault.Path, fault.Message)
	}
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return &Refusal{Status: response.StatusCode, Detail: problem.Detail, RetryAfter: time.Duration(seconds) * time.Second}
}
