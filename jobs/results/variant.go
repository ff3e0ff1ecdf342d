package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// picture is an image of the training split.
type picture struct{ key, member, class string }

// pictures lists the training split.
func pictures(data string) (list []picture, err error) {
	tars, err := filepath.Glob(filepath.Join(data, "cifar10-train-*.tar"))
	if err == nil && len(tars) == 0 {
		err = fmt.Errorf("no cifar10-train-*.tar in %s: name their folder with --data", data)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range tars {
		if list, err = members(list, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return list, nil
}

func members(list []picture, name string) ([]picture, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			list = append(list, picture{filepath.Base(name), h.Name, path.Base(path.Dir(h.Name))})
		}
	}
}

// choose keeps of each class the share that its variant says: the images whose
// key and member have the lowest sha256, so that a smaller share is a part of a
// larger one. It returns them in the order given, and how many each class keeps.
func choose(all []picture, share func(class, classes int) float64) (kept []picture, counts map[string]int) {
	byClass := map[string][]picture{}
	for _, p := range all {
		byClass[p.class] = append(byClass[p.class], p)
	}
	counts = map[string]int{}
	chosen := map[picture]bool{}
	classes := slices.Sorted(maps.Keys(byClass))
	for c, name := range classes {
		list := byClass[name]
		slices.SortFunc(list, func(a, b picture) int {
			x, y := sha256.Sum256([]byte(a.key+"\x00"+a.member)), sha256.Sum256([]byte(b.key+"\x00"+b.member))
			return bytes.Compare(x[:], y[:])
		})
		counts[name] = int(share(c, len(classes))*float64(len(list)) + 0.5)
		for _, p := range list[:counts[name]] {
			chosen[p] = true
		}
	}
	for _, p := range all {
		if chosen[p] {
			kept = append(kept, p)
		}
	}
	return kept, counts
}

// writeList writes the table that images.only reads.
func writeList(file string, list []picture) error {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"key", "member"}) // Flush has its error
	for _, p := range list {
		_ = w.Write([]string{p.key, p.member})
	}
	w.Flush()
	return errors.Join(w.Error(), os.WriteFile(file, b.Bytes(), 0o644))
}
