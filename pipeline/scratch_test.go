package pipeline

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

func TestSweep(t *testing.T) {
	local := Local{Dir: t.TempDir(), Bytes: 1 << 20}
	living, err := newScratch(local)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := newScratch(local)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, s := range []*scratch{living, ended} {
		dir, _, err := s.reserve(t.Context(), 1, "attempt")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "part"), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	if err := ended.lock.Close(); err != nil { // as the end of its process would
		t.Fatal(err)
	}
	if _, err := newScratch(local); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dirs[0], "part")); err != nil {
		t.Errorf("a living owner's file is gone: %v", err)
	}
	if _, err := os.Stat(ended.dir); !os.IsNotExist(err) {
		t.Errorf("what an ended owner left is still there: %v", err)
	}
	if _, err := os.Stat(ended.dir + lockSuffix); !os.IsNotExist(err) {
		t.Errorf("the lock of an ended owner is still there: %v", err)
	}
	runtime.KeepAlive(living)
}

// TestSweepRace makes owners and sweeps at once: nobody may lose a folder.
func TestSweepRace(t *testing.T) {
	local := Local{Dir: t.TempDir(), Bytes: 1 << 20}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 20 {
				s, err := newScratch(local)
				if err != nil {
					t.Error(err)
					return
				}
				dir, release, err := s.reserve(t.Context(), 1, "attempt")
				if err != nil {
					t.Error(err)
					return
				}
				path := filepath.Join(dir, "part")
				if err := os.WriteFile(path, []byte("x"), 0o666); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
				release()
				if err := s.lock.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if _, err := newScratch(local); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(local.Dir, "attempts", "*")); len(left) > 1 {
		t.Errorf("left %v", left)
	}
}
