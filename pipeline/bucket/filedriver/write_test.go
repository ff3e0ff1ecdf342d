package filedriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

func create(ctx context.Context, b *blob.Bucket, key string, data []byte) error {
	return b.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{ContentType: "text/plain", IfNotExist: true})
}

// race creates the keys k0, k1, … with who as their bytes and returns those it won.
func race(dir, who string, keys int) (won []string, err error) {
	b, err := Open(dir, Options{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	for i := range keys {
		key := fmt.Sprintf("deep/er/k%d", i)
		switch err := create(context.Background(), b, key, []byte(who)); gcerrors.Code(err) {
		case gcerrors.OK:
			won = append(won, key)
		case gcerrors.FailedPrecondition:
		default:
			return nil, err
		}
	}
	return won, nil
}

// checkRace checks that each key has one winner, whose bytes it holds.
func checkRace(t *testing.T, dir string, wins map[string][]string, keys int) {
	t.Helper()
	winner := map[string]string{}
	for who, won := range wins {
		for _, key := range won {
			if winner[key] != "" {
				t.Errorf("%s was created by %s and by %s", key, winner[key], who)
			}
			winner[key] = who
		}
	}
	if len(winner) != keys {
		t.Errorf("%d of %d keys were created", len(winner), keys)
	}
	for key, who := range winner {
		if got, err := os.ReadFile(filepath.Join(dir, key)); err != nil || string(got) != who {
			t.Errorf("%s holds %q (%v), its winner is %s", key, got, err, who)
		}
	}
}

func TestCreateRaceInOneProcess(t *testing.T) {
	const writers, keys = 16, 40
	dir := t.TempDir()
	var mu sync.Mutex
	wins := map[string][]string{}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			who := fmt.Sprintf("writer %d", i)
			won, err := race(dir, who, keys)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			wins[who] = won
		})
	}
	wg.Wait()
	checkRace(t, dir, wins, keys)
}

const raceEnv = "FILEDRIVER_TEST_RACE"

func TestMain(m *testing.M) {
	if job := os.Getenv(raceEnv); job != "" {
		dir, who, _ := strings.Cut(job, "|")
		won, err := race(dir, who, 100)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(strings.Join(won, "\n"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCreateRaceAcrossProcesses(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	wins := map[string][]string{}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			who := fmt.Sprintf("process %d", i)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), raceEnv+"="+dir+"|"+who)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			wins[who] = strings.Fields(string(out))
		})
	}
	wg.Wait()
	checkRace(t, dir, wins, 100)
}

// TestCreateWhileFoldersVanish lets deletes remove the folders that creates are
// about to use.
func TestCreateWhileFoldersVanish(t *testing.T) {
	b, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 100 {
				key := fmt.Sprintf("a/b/c/%d", i)
				if err := create(t.Context(), b, key, nil); err != nil {
					t.Error(err)
				}
				if err := b.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWritesStayInside(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	lay(t, outside, "precious")
	for name, to := range map[string]string{"out": outside, "up": "..", "file": filepath.Join(outside, "precious")} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := b.ReadAll(t.Context(), "out/precious"); err != nil || string(got) != "precious" {
		t.Errorf("reading through a link: %q, %v", got, err)
	}
	for _, key := range []string{"out/new", "out/precious", "up/new", "out/deep/new"} {
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err == nil {
			t.Errorf("%s was written through a link", key)
		}
	}
	if err := b.Delete(t.Context(), "out/precious"); err == nil {
		t.Error("a file outside was deleted")
	}
	// A link itself can be replaced; what it points to stays.
	if err := b.WriteAll(t.Context(), "file", []byte("mine"), nil); err != nil {
		t.Error(err)
	}
	// Keys that look like a way out name nothing outside.
	for _, key := range []string{"../stolen", "/etc/stolen", "a/../../stolen"} {
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err != nil {
			t.Errorf("%q: %v", key, err)
		}
		if got, err := b.ReadAll(t.Context(), key); err != nil || string(got) != "x" {
			t.Errorf("%q: %q, %v", key, got, err)
		}
	}
	if got := list(t, open(t, outside), driver.ListOptions{}); !slices.Equal(got, []string{"precious"}) {
		t.Errorf("outside there is now %q", got)
	}
	if got, _ := os.ReadFile(filepath.Join(outside, "precious")); string(got) != "precious" {
		t.Errorf("the file outside now holds %q", got)
	}
}

func TestCheckKey(t *testing.T) {
	long := strings.Repeat("x", 256)
	for key, want := range map[string]string{
		"a": "", "a/b": "", "a b/ü/'\"%41\\\n": "", "a\xff": "", "...": "", ".hidden": "", "a.attrs": "", long[1:]: "",
		"":                   "it is empty",
		"a//b":               "a segment of it is empty",
		"a/":                 "a segment of it is empty",
		"/a":                 "a segment of it is empty",
		"./a":                "a segment of it is .",
		"a/../b":             "a segment of it is ..",
		"a\x00":              "it holds a NUL byte",
		"a/" + long:          "a segment of it has more than 255 bytes",
		"a/" + Reserved:      "the name .sela-bucket is reserved",
		Reserved + "/tmp/x":  "the name .sela-bucket is reserved",
		"x//" + Reserved:     "the name .sela-bucket is reserved",
		Reserved + "y/z/ok ": "",
	} {
		err := CheckKey(key)
		var k *KeyError
		switch {
		case want == "" && err != nil, want != "" && (!errors.As(err, &k) || k.Reason != want):
			t.Errorf("CheckKey(%q) = %v, want reason %q", key, err, want)
		case want != "" && !errors.Is(err, fs.ErrInvalid):
			t.Errorf("CheckKey(%q) is not fs.ErrInvalid", key)
		}
	}
}

func TestClashOfObjectAndFolder(t *testing.T) {
	b, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.WriteAll(t.Context(), "a/b", nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, exclusive := range []bool{false, true} {
		for _, key := range []string{"a", "a/b/c", "a/b/c/d"} {
			err := b.WriteAll(t.Context(), key, nil, &blob.WriterOptions{IfNotExist: exclusive})
			var k *KeyError
			if gcerrors.Code(err) != gcerrors.InvalidArgument || !errors.As(err, &k) {
				t.Errorf("writing %q beside a/b (exclusive: %v): %v", key, exclusive, err)
			}
		}
	}
}

func TestTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, temporaryDir+"/old", temporaryDir+"/young")
	past := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(filepath.Join(dir, temporaryDir, "old"), past, past); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.WriteAll(t.Context(), "x", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.NewWriter(ctx, "y", nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 4096))
	cancel()
	if err := w.Close(); err == nil {
		t.Error("a cancelled write succeeded")
	}
	entries, err := os.ReadDir(filepath.Join(dir, temporaryDir))
	if err != nil || len(entries) != 1 || entries[0].Name() != "young" {
		t.Errorf("temporary files: %v, %v", entries, err)
	}
}

type failingReader struct{ n int }

func (r *failingReader) Read(p []byte) (int, error) {
	if r.n--; r.n < 0 {
		return 0, errors.New("the source failed")
	}
	return len(p), nil
}

func TestFailedSourceLeavesNothing(t *testing.T) {
	b, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Upload(t.Context(), "x", &failingReader{2}, &blob.WriterOptions{ContentType: "text/plain"}); err == nil {
		t.Error("an upload from a failing source succeeded")
	}
	if ok, _ := b.Exists(t.Context(), "x"); ok {
		t.Error("a part of an object is visible")
	}
}

func TestETagTellsWritesApart(t *testing.T) {
	b, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before := ""
	for range 20 { // as fast as the clock's grain allows
		if err := b.WriteAll(t.Context(), "x", []byte("same"), nil); err != nil {
			t.Fatal(err)
		}
		a, err := b.Attributes(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if a.ETag == before {
			t.Fatalf("two writes have the entity tag %s", before)
		}
		before = a.ETag
	}
}

func TestURL(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"file://" + here + "/a%20b?create_dir=true": here + "/a b",
		"file:rel/a%25?create_dir=1":                here + "/rel/a%",
		"file:./dot?create_dir=1":                   here + "/dot",
		"file://localhost" + here:                   here,
		"file:missing":                              "",
		"file:missing?create_dir=false":             "",
		"file://relative/path":                      "",
		"file://" + here + "?no_tmp_dir=1":          "",
		"file://":                                   "",
	} {
		mux := new(blob.URLMux)
		mux.RegisterBucket(Scheme, URLOpener{})
		b, err := mux.OpenBucket(t.Context(), url)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", url, err)
			}
			continue
		}
		var root Root
		if !b.As(&root) || string(root) != want {
			t.Errorf("%s opened %q, want %q", url, root, want)
		}
		b.Close()
	}
}
