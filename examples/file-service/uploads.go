// The uploads: what comes in as multipart, and which of the two ways it goes on.

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"regexp"
)

const (
	// uploadLimit is the default of Hookline's server.upload_limit.
	uploadLimit = 100 << 20
	// formOverhead is for boundaries, part headers and the small fields, which do not count as the file.
	formOverhead = 64 << 10
	fieldLimit   = 4 << 10
)

var userIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// Fault is what the caller did wrong.
type Fault struct {
	Status int
	Detail string
}

func (f *Fault) Error() string { return f.Detail }

// Uploads are the routes. Say gets a line for each upload; it never holds a token.
type Uploads struct {
	storage  *Storage
	hookline *Hookline
	say      func(Line)
	// Limit is the most bytes that a file may have.
	Limit int64
}

// NewUploads takes files of up to 100 MiB.
func NewUploads(storage *Storage, hookline *Hookline, say func(Line)) *Uploads {
	return &Uploads{storage: storage, hookline: hookline, say: say, Limit: uploadLimit}
}

// Routes are the service's handlers.
func (u *Uploads) Routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/upload", u.handle(u.UploadDocument))
	mux.HandleFunc("/relay", u.handle(u.RelayDocument))
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, Line{"status": "live"}) })
	return mux
}

// upload is one multipart form: the file as `file`, its owner as `userId`, in any order.
type upload struct {
	*Incoming
	filename string
	// mimeType is the file part's Content-Type as the browser wrote it: it may be empty, application/octet-stream, or have a charset.
	mimeType string
	userID   string
}

// UploadDocument stores the document where Hookline looks for it and posts the job that starts the workflow.
func (u *Uploads) UploadDocument(r *http.Request, file *upload) (*Started, error) {
	documentID, err := u.storage.Keep(file.Incoming, file.filename)
	if err != nil {
		return nil, err
	}
	started, err := u.hookline.Trigger(r.Context(), Job{
		DocumentID: documentID,
		UserID:     file.userID,
		Filename:   file.filename,
		MimeType:   file.mimeType,
		FileSize:   file.Size,
	})
	if refusal := new(Refusal); errors.As(err, &refusal) && refusal.Certain() {
		// After a lost answer, or a 5xx, there may be a run, and it needs the document.
		if failed := u.storage.Remove(documentID); failed != nil {
			u.say(Line{"error": failed.Error(), "left": documentID})
		}
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%s is stored, but whether it is being processed is not known: %w", documentID, err)
	}
	return started, nil
}

// RelayDocument has Hookline store the document itself.
func (u *Uploads) RelayDocument(r *http.Request, file *upload) (*Started, error) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		random, err := randomHex(16)
		if err != nil {
			return nil, err
		}
		key = random
	}
	// To Hookline all our users are one caller: without the user in it, the key of one would find the run of another.
	digest := sha256.Sum256([]byte(file.userID + "\x00" + key))
	return u.hookline.Relay(r.Context(), Document{
		UserID:   file.userID,
		Filename: file.filename,
		MimeType: file.mimeType,
		Size:     file.Size,
		Open:     file.Open,
	}, hex.EncodeToString(digest[:]))
}

func (u *Uploads) handle(pass func(*http.Request, *upload) (*Started, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		started, err := u.take(w, r, pass)
		if err != nil {
			status, detail := statusOf(err), err.Error()
			u.say(Line{"error": detail, "path": r.URL.Path, "status": status})
			if status == http.StatusInternalServerError {
				detail = "the storage failed; the log says why" // paths of this machine are nobody's business
			}
			answer(w, status, Line{"title": http.StatusText(status), "status": status, "detail": detail})
			return
		}
		u.say(Line{"uploaded": started.DocumentID, "path": r.URL.Path, "jobId": started.JobID, "runId": started.RunID})
		answer(w, http.StatusAccepted, started)
	}
}

func (u *Uploads) take(w http.ResponseWriter, r *http.Request, pass func(*http.Request, *upload) (*Started, error)) (*Started, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &Fault{http.StatusMethodNotAllowed, "send it with POST"}
	}
	r.Body = http.MaxBytesReader(w, r.Body, u.Limit+formOverhead)
	file, err := u.receive(r)
	if err != nil {
		return nil, err
	}
	defer file.Discard()
	return pass(r, file)
}

func (u *Uploads) receive(r *http.Request) (*upload, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, &Fault{http.StatusUnsupportedMediaType, "send multipart/form-data: curl -F file=@report.pdf -F userId=alice"}
	}
	file := &upload{}
	if err := u.fill(file, parts); err != nil {
		if file.Incoming != nil {
			file.Discard()
		}
		return nil, err
	}
	return file, nil
}

func (u *Uploads) fill(file *upload, parts *multipart.Reader) error {
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return unreadable(err)
		}
		if err := u.part(part, file); err != nil {
			return err
		}
	}
	switch {
	case file.Incoming == nil:
		return &Fault{http.StatusUnprocessableEntity, "file: is required"}
	case file.Size == 0:
		return &Fault{http.StatusUnprocessableEntity, "file: is empty"}
	case !userIDs.MatchString(file.userID) || file.userID == "." || file.userID == "..":
		return &Fault{http.StatusUnprocessableEntity, "userId: use 1 to 128 of A-Z a-z 0-9 . _ - (and not . or ..)"}
	}
	return nil
}

func (u *Uploads) part(part *multipart.Part, file *upload) error {
	switch part.FormName() {
	case "file":
		if file.Incoming != nil {
			return &Fault{http.StatusUnprocessableEntity, "file: there are two; send one a request"}
		}
		if err := CheckName(part.FileName()); err != nil {
			return err
		}
		incoming, err := u.storage.Receive(io.LimitReader(part, u.Limit+1))
		if err != nil {
			return unreadable(err)
		}
		file.Incoming, file.filename, file.mimeType = incoming, part.FileName(), part.Header.Get("Content-Type")
		if incoming.Size > u.Limit {
			return &Fault{http.StatusRequestEntityTooLarge, fmt.Sprintf("file: has more than %d bytes", u.Limit)}
		}
	case "userId":
		value, err := io.ReadAll(io.LimitReader(part, fieldLimit))
		if err != nil {
			return unreadable(err)
		}
		file.userID = string(value)
	}
	return nil
}

// unreadable tells what the client did wrong from what the disk did.
func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &Fault{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Fault{http.StatusBadRequest, "the upload broke off"}
	}
	return err
}

func statusOf(err error) int {
	var fault *Fault
	var refusal *Refusal
	switch {
	case errors.As(err, &fault):
		return fault.Status
	case errors.Is(err, ErrName):
		return http.StatusUnprocessableEntity
	case errors.Is(err, ErrNoToken):
		return http.StatusServiceUnavailable
	case errors.As(err, &refusal) && (refusal.Status == http.StatusUnprocessableEntity || refusal.Status == http.StatusConflict):
		return refusal.Status
	case errors.As(err, &refusal), errors.Is(err, ErrAway):
		return http.StatusBadGateway
	}
	return http.StatusInternalServerError
}

func answer(w http.ResponseWriter, status int, body any) {
	kind := "application/json"
	if status >= 400 {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	// The caller may have gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}
