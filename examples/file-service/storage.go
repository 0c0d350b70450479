// The storage: Hookline's layout of documents, written so that nothing half-done is ever seen.

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nameBytes is what common file systems allow for one name.
const nameBytes = 255

// ErrName is the fault of a file name that Hookline would refuse too.
var ErrName = errors.New("the file name cannot be used")

// Storage is the folder that Hookline's storage.url names, in Hookline's layout:
//
//	documents/<documentId>/<filename>   the document, as it came
//	.incoming/<random>                  files that are still being written; Hookline removes those that were abandoned a day ago
type Storage struct {
	root string
}

// OpenStorage makes the folder if it is not there.
func OpenStorage(root string) (*Storage, error) {
	if err := os.MkdirAll(filepath.Join(root, ".incoming"), 0o755); err != nil {
		return nil, fmt.Errorf("STORAGE: %w; name a folder that this user may write to", err)
	}
	return &Storage{root: root}, nil
}

// Incoming is a file that has come, in part or whole, but has no place yet.
type Incoming struct {
	file *os.File
	Size int64
}

// Receive writes what the reader yields to a file without a place. On an error nothing is left.
func (s *Storage) Receive(reader io.Reader) (*Incoming, error) {
	name, err := randomHex(16)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(s.root, ".incoming", name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	incoming := &Incoming{file: file}
	if incoming.Size, err = io.Copy(file, reader); err != nil {
		incoming.Discard()
		return nil, err
	}
	return incoming, nil
}

// Open reads the file from its beginning.
func (i *Incoming) Open() io.Reader {
	return io.NewSectionReader(i.file, 0, i.Size)
}

// Discard removes the file, unless it was kept.
func (i *Incoming) Discard() {
	i.file.Close()
	os.Remove(i.file.Name())
}

// Keep puts the file into its place under a new document id. It appears there whole or not at all.
func (s *Storage) Keep(incoming *Incoming, filename string) (documentID string, err error) {
	if err := CheckName(filename); err != nil {
		return "", err
	}
	random, err := randomHex(12)
	if err != nil {
		return "", err
	}
	// Before the rename: a job that Hookline accepted must find its document after a power cut too.
	if err := incoming.file.Sync(); err != nil {
		return "", err
	}
	documentID = "doc_" + random
	folder := s.folder(documentID)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(incoming.file.Name(), filepath.Join(folder, filename)); err != nil {
		os.Remove(folder)
		return "", err
	}
	return documentID, nil
}

// Remove takes a document away again that Hookline refused.
func (s *Storage) Remove(documentID string) error {
	return os.RemoveAll(s.folder(documentID))
}

func (s *Storage) folder(documentID string) string {
	return filepath.Join(s.root, "documents", documentID)
}

// CheckName returns an ErrName for what is a path, reserved, too long, not UTF-8, or holds control characters.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || name == ".hookline":
		return fmt.Errorf("%w: %q is reserved", ErrName, name)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is not UTF-8", ErrName)
	case strings.ContainsAny(name, `/\`):
		return fmt.Errorf("%w: %q is a path; send its last part alone", ErrName, name)
	case strings.IndexFunc(name, unicode.IsControl) >= 0:
		return fmt.Errorf("%w: %q holds control characters", ErrName, name)
	case len(name) > nameBytes:
		return fmt.Errorf("%w: it has %d bytes, shorten it to %d", ErrName, len(name), nameBytes)
	}
	return nil
}

func randomHex(size int) (string, error) {
	random := make([]byte, size)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	return hex.EncodeToString(random), nil
}
