// The storage: which names are taken, and what a failure leaves.

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestNames(t *testing.T) {
	for _, name := range []string{"a.pdf", "a b.pdf", "Größe.pdf", "..pdf", "...", ".hidden", "文書.txt", "😀.txt", strings.Repeat("a", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".hookline", "a/b", "/a", `a\b`, "a\x00", "a\n", "a\u0085", "\xff.pdf", strings.Repeat("a", 256), strings.Repeat("ü", 128)} {
		if err := CheckName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q was taken: %v", name, err)
		}
	}
}

func TestAReaderThatFailsLeavesNothing(t *testing.T) {
	root := t.TempDir()
	storage, err := OpenStorage(root)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := storage.Receive(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(filepath.Join(root, ".incoming")); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestAFolderThatCannotBeMadeIsSaidWithTheNameOfTheVariable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStorage(file); err == nil || !strings.Contains(err.Error(), "STORAGE") {
		t.Errorf("%v", err)
	}
}
