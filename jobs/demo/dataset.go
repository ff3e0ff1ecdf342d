package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"sela/jobs/demo/letters"
	"sela/pipeline"
)

// params is all that the bytes of a data set depend on.
type params struct {
	Version int    `json:"version"` // letters.Version
	Seed    uint64 `json:"seed"`
	Count   int    `json:"count"`   // images in all
	Members int    `json:"members"` // of these, the last ones, in tar shards
	Group   int    `json:"group"`   // images in a folder of loose files and in a tar
}

// stamp is the content of a data set's stamp.json. It is written before the
// first image, which marks the folder as ours to rewrite, and again after the
// last, which marks it complete.
type stamp struct {
	params
	Complete bool `json:"complete"`
}

// The layout of a data set's folder. The truth lies outside the folder that is
// opened as a bucket, so that no job can come upon it.
const (
	imagesDir = "images"
	truthFile = "truth/classes.csv"
	stampFile = "stamp.json"
)

// name is what label tables call an image: the object's key in the bucket and,
// for a member of a tar, its name there.
type name struct{ Key, Member string }

// drawn is one image's entry in the truth.
type drawn struct {
	name
	letter byte
}

// writeDataset makes the data set p under dir with as many workers, or finds
// it there already and writes nothing (made is false). The bytes of the images
// and of the truth depend on p alone. A folder that holds images or a truth
// but no stamp is somebody else's and refused.
func writeDataset(ctx context.Context, dir string, p params, workers int) (made bool, err error) {
	if p.Count < 1 || p.Members < 0 || p.Members > p.Count || p.Group < 1 {
		return false, pipeline.BadUsage(fmt.Errorf("make demo images: %d images, %d of them in tars: want at least 1 image and no more members than images", p.Count, p.Members))
	}
	old, err := readStamp(dir)
	switch {
	case err == nil && old.Complete && old.params == p && filesPresent(dir, p):
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		for _, part := range []string{imagesDir, path.Dir(truthFile)} {
			if _, err := os.Lstat(filepath.Join(dir, part)); err == nil {
				return false, pipeline.BadUsage(fmt.Errorf("make demo images: %s exists and was not made by this command: choose another folder", filepath.Join(dir, part)))
			}
		}
	case err != nil:
		return false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("make demo images: %w", err)
	}
	if err := writeStamp(dir, stamp{p, false}); err != nil {
		return false, err
	}
	for _, part := range []string{imagesDir, path.Dir(truthFile)} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			return false, fmt.Errorf("remove the former demo images: %w", err)
		}
	}
	truth := make([]drawn, p.Count)
	if err := writeLoose(ctx, filepath.Join(dir, imagesDir), p, workers, truth); err != nil {
		return false, err
	}
	if err := writeShards(ctx, filepath.Join(dir, imagesDir), p, workers, truth); err != nil {
		return false, err
	}
	if err := writeTruth(filepath.Join(dir, truthFile), truth); err != nil {
		return false, err
	}
	return true, writeStamp(dir, stamp{p, true})
}

// writeLoose writes images [0, Count-Members) as one file each and notes them
// in truth.
func writeLoose(ctx context.Context, dir string, p params, workers int, truth []drawn) error {
	loose := p.Count - p.Members
	for from := 0; from < max(loose, 1); from += p.Group {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%04d", from/p.Group)), 0o755); err != nil {
			return fmt.Errorf("make demo images: %w", err)
		}
	}
	return forEach(ctx, 0, loose, workers, func(i int, buf *bytes.Buffer) error {
		ext, letter, err := letters.Encode(buf, i, p.Seed)
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%04d/%06d%s", i/p.Group, i, ext)
		truth[i] = drawn{name{Key: key}, letter}
		return os.WriteFile(filepath.Join(dir, key), buf.Bytes(), 0o644)
	})
}

// writeShards writes images [Count-Members, Count) as members of tars of at
// most p.Group members, a WebDataset whose samples have one file each, and
// notes them in truth. It holds one tar's images in memory.
func writeShards(ctx context.Context, dir string, p params, workers int, truth []drawn) error {
	files := make([][]byte, p.Group)
	for from := p.Count - p.Members; from < p.Count; from += p.Group {
		to := min(from+p.Group, p.Count)
		key := fmt.Sprintf("shard-%04d.tar", (from-(p.Count-p.Members))/p.Group)
		err := forEach(ctx, from, to, workers, func(i int, buf *bytes.Buffer) error {
			ext, letter, err := letters.Encode(buf, i, p.Seed)
			if err != nil {
				return err
			}
			files[i-from] = bytes.Clone(buf.Bytes())
			truth[i] = drawn{name{key, fmt.Sprintf("%06d%s", i, ext)}, letter}
			return nil
		})
		if err != nil {
			return err
		}
		if err := writeTar(filepath.Join(dir, key), truth[from:to], files); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
	}
	return nil
}

func writeTar(file string, members []drawn, files [][]byte) error {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for i, m := range members {
		header := &tar.Header{Name: m.Member, Size: int64(len(files[i])), Mode: 0o644, Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(files[i]); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// forEach calls do for every number in [from, to) on the given number of
// goroutines, each with an empty buffer of its own.
func forEach(ctx context.Context, from, to, workers int, do func(i int, buf *bytes.Buffer) error) error {
	workers = max(workers, 1)
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		group.Go(func() error {
			var buf bytes.Buffer
			for i := from + w; i < to; i += workers {
				if err := ctx.Err(); err != nil {
					return err
				}
				buf.Reset()
				if err := do(i, &buf); err != nil {
					return fmt.Errorf("make demo image %d: %w", i, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func readStamp(dir string) (s stamp, err error) {
	file := filepath.Join(dir, stampFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return s, fmt.Errorf("read the demo's stamp: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read %s: %w; remove the folder and try again", file, err)
	}
	return s, nil
}

// writeStamp replaces the stamp at once, so that a process killed here leaves
// one that can be read.
func writeStamp(dir string, s stamp) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the demo's stamp: %w", err)
	}
	file := filepath.Join(dir, stampFile)
	if err := os.WriteFile(file+".new", append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the demo's stamp: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write the demo's stamp: %w", err)
	}
	return nil
}

// filesPresent says whether the folder still holds as many files as were
// written: somebody may have removed some and kept the stamp.
func filesPresent(dir string, p params) bool {
	if _, err := os.Stat(filepath.Join(dir, truthFile)); err != nil {
		return false
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(dir, imagesDir), func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files++
		}
		return err
	})
	return err == nil && files == p.Count-p.Members+(p.Members+p.Group-1)/p.Group
}

func writeTruth(file string, truth []drawn) error {
	var out bytes.Buffer
	table := csv.NewWriter(&out)
	rows := [][]string{{"key", "member", "class"}}
	for _, t := range truth {
		rows = append(rows, []string{t.Key, t.Member, string(rune(t.letter))})
	}
	if err := table.WriteAll(rows); err != nil {
		return fmt.Errorf("write the truth: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write the truth: %w", err)
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the truth: %w", err)
	}
	return nil
}

// readTruth returns the true class of each image, 0 for A to 25 for Z, by the
// name label tables give it.
func readTruth(file string) (map[name]int32, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the truth: %w", err)
	}
	defer f.Close()
	table := csv.NewReader(f)
	table.FieldsPerRecord = 3
	table.ReuseRecord = true
	truth := map[name]int32{}
	for line := 1; ; line++ {
		row, err := table.Read()
		if err == io.EOF {
			return truth, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if line == 1 {
			continue
		}
		letter := row[2]
		if len(letter) != 1 || letter[0] < 'A' || letter[0] > 'Z' {
			return nil, fmt.Errorf("read %s: line %d: %s is no letter from A to Z", file, line, strconv.Quote(letter))
		}
		truth[name{row[0], row[1]}] = int32(letter[0] - 'A')
	}
}
