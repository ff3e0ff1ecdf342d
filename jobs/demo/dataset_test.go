package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"image"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sela/jobs/demo/letters"
)

func small() params {
	return params{Version: letters.Version, Seed: 11, Count: 88, Members: 50, Group: 20}
}

func mustWrite(t *testing.T, dir string, p params, workers int) {
	t.Helper()
	made, err := writeDataset(t.Context(), dir, p, workers)
	if err != nil {
		t.Fatal(err)
	}
	if !made {
		t.Fatal("data set was not written")
	}
}

// contents returns every file below dir by its path there.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, file))
		files[file] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// imagesOf returns the bytes of all images by name.
func imagesOf(t *testing.T, dir string) map[name][]byte {
	t.Helper()
	images := map[name][]byte{}
	for file, data := range contents(t, filepath.Join(dir, imagesDir)) {
		if filepath.Ext(file) != ".tar" {
			images[name{Key: file}] = []byte(data)
			continue
		}
		for archive := tar.NewReader(strings.NewReader(data)); ; {
			header, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			member, err := io.ReadAll(archive)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, header.Name, err)
			}
			images[name{file, header.Name}] = member
		}
	}
	return images
}

func TestBytesDoNotDependOnWorkers(t *testing.T) {
	var want map[string]string
	for _, workers := range []int{1, 2, 7} {
		dir := t.TempDir()
		mustWrite(t, dir, small(), workers)
		got := contents(t, dir)
		if want == nil {
			want = got
			continue
		}
		if len(got) != len(want) {
			t.Fatalf("%d workers wrote %d files, 1 wrote %d", workers, len(got), len(want))
		}
		for file, data := range want {
			if got[file] != data {
				t.Errorf("%d workers: %s differs", workers, file)
			}
		}
	}
}

func TestTruthMatchesImages(t *testing.T) {
	dir, p := t.TempDir(), small()
	mustWrite(t, dir, p, 2)
	truth, err := readTruth(filepath.Join(dir, truthFile))
	if err != nil {
		t.Fatal(err)
	}
	images := imagesOf(t, dir)
	if len(images) != p.Count || len(truth) != p.Count {
		t.Fatalf("%d images, %d in the truth, want %d", len(images), len(truth), p.Count)
	}
	inTar := 0
	for n, data := range images {
		if _, _, err := image.Decode(bytes.NewReader(data)); err != nil {
			t.Errorf("%v does not decode: %v", n, err)
		}
		if _, ok := truth[n]; !ok {
			t.Errorf("%v is not in the truth", n)
		}
		if n.Member != "" {
			inTar++
		}
	}
	if inTar != p.Members {
		t.Errorf("%d images in tars, want %d", inTar, p.Members)
	}

	// The images under a name are those whose letter the truth states.
	byBytes := map[string]int32{}
	for i := range p.Count {
		var buf bytes.Buffer
		if _, letter, err := letters.Encode(&buf, i, p.Seed); err != nil {
			t.Fatal(err)
		} else {
			byBytes[buf.String()] = int32(letter - 'A')
		}
	}
	var counts [letters.Count]int
	for n, data := range images {
		letter, ok := byBytes[string(data)]
		if !ok || letter != truth[n] {
			t.Errorf("%v: truth says %c, the image is %c (known: %v)", n, 'A'+truth[n], 'A'+letter, ok)
		}
		counts[letter]++
	}
	for l, c := range counts {
		if c < p.Count/letters.Count || c > p.Count/letters.Count+1 {
			t.Errorf("%d images of %c", c, 'A'+l)
		}
	}
}

func TestNamesDoNotTellLetters(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, dir, small(), 2)
	for n := range imagesOf(t, dir) {
		for _, part := range []string{n.Key, n.Member} {
			stem := strings.TrimSuffix(strings.TrimPrefix(part, "shard-"), filepath.Ext(part))
			if strings.Trim(stem, "0123456789/") != "" {
				t.Fatalf("name %q holds more than numbers", part)
			}
		}
	}
	for file := range contents(t, filepath.Join(dir, imagesDir)) {
		if filepath.Ext(file) == ".csv" || filepath.Base(file) == stampFile {
			t.Errorf("%s lies among the images", file)
		}
	}
}

func TestCompleteFolderIsNotRewritten(t *testing.T) {
	dir, p := t.TempDir(), small()
	mustWrite(t, dir, p, 2)
	long := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for file := range contents(t, dir) {
		if err := os.Chtimes(filepath.Join(dir, file), long, long); err != nil {
			t.Fatal(err)
		}
	}
	made, err := writeDataset(t.Context(), dir, p, 2)
	if err != nil || made {
		t.Fatalf("second call: made %v, %v; want it to find the first one's", made, err)
	}
	for file := range contents(t, dir) {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if !info.ModTime().Equal(long) {
			t.Errorf("%s was written again", file)
		}
	}
}

func TestIncompleteFolderIsMadeAnew(t *testing.T) {
	want := t.TempDir()
	mustWrite(t, want, small(), 2)
	tests := map[string]func(t *testing.T, dir string){
		"another seed": func(t *testing.T, dir string) {
			p := small()
			p.Seed++
			mustWrite(t, dir, p, 2)
		},
		"more images": func(t *testing.T, dir string) {
			p := small()
			p.Count += 40
			mustWrite(t, dir, p, 2)
		},
		"a file was removed": func(t *testing.T, dir string) {
			mustWrite(t, dir, small(), 2)
			if err := os.Remove(filepath.Join(dir, imagesDir, "shard-0001.tar")); err != nil {
				t.Fatal(err)
			}
		},
		"interrupted": func(t *testing.T, dir string) {
			mustWrite(t, dir, small(), 2)
			if err := writeStamp(dir, stamp{small(), false}); err != nil {
				t.Fatal(err)
			}
		},
		"cancelled": func(t *testing.T, dir string) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := writeDataset(ctx, dir, small(), 2); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled: %v", err)
			}
		},
	}
	for what, before := range tests {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			before(t, dir)
			mustWrite(t, dir, small(), 2)
			got, want := contents(t, dir), contents(t, want)
			if len(got) != len(want) {
				t.Fatalf("%d files, want %d", len(got), len(want))
			}
			for file := range want {
				if got[file] != want[file] {
					t.Errorf("%s differs", file)
				}
			}
		})
	}
}

func TestForeignFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, imagesDir, "holiday.jpg")
	if err := os.MkdirAll(filepath.Dir(mine), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := writeDataset(t.Context(), dir, small(), 2); err == nil {
		t.Fatal("a folder with somebody's images was taken")
	}
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Fatalf("somebody's image: %q, %v", data, err)
	}
}

func TestParamsAreChecked(t *testing.T) {
	for _, p := range []params{
		{Count: 0, Group: 1}, {Count: -1, Group: 1}, {Count: 5, Members: 6, Group: 1}, {Count: 5, Members: -1, Group: 1}, {Count: 5},
	} {
		if _, err := writeDataset(t.Context(), t.TempDir(), p, 1); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	all := params{Version: letters.Version, Count: 30, Members: 30, Group: 20}
	dir := t.TempDir()
	mustWrite(t, dir, all, 2)
	if made, err := writeDataset(t.Context(), dir, all, 2); made || err != nil {
		t.Errorf("tars only: second call made %v, %v", made, err)
	}
}

func TestReadTruthNamesTheLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "truth.csv")
	for _, bad := range []string{"a.jpg,,AB", "a.jpg,,", "a.jpg,,a", "a.jpg,A"} {
		if err := os.WriteFile(file, []byte("key,member,class\n"+bad+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readTruth(file); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("row %q: %v, want an error naming line 2", bad, err)
		}
	}
}
