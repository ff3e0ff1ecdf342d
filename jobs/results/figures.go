package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// figure is a line of a row's CSV file: one measure of one seed.
type figure struct {
	seed    int
	epoch   int // after which it was measured
	measure string
	value   float64
	chance  *float64 // the value of labels that say nothing
	machine string   // of a figure that was read; one that is kept gets this machine
}

var header = []string{"row", "seed", "epoch", "measure", "value", "chance", "machine", "code"}

func (s *settings) file(row string) string { return filepath.Join(s.out, row+".csv") }

// keep puts the figures of a seed into the row's file, in the place of those that
// it had, whole or not at all.
func (s *settings) keep(row string, seed int, figures []figure, code string) error {
	lines, err := readLines(s.file(row))
	if err != nil {
		return err
	}
	lines = slices.DeleteFunc(lines, func(l []string) bool { return l[1] == strconv.Itoa(seed) })
	for _, f := range figures {
		chance := ""
		if f.chance != nil {
			chance = number(*f.chance)
		}
		lines = append(lines, []string{row, strconv.Itoa(seed), strconv.Itoa(f.epoch), f.measure, number(f.value), chance, s.machine, code})
	}
	slices.SortStableFunc(lines, func(a, b []string) int {
		x, _ := strconv.Atoi(a[1])
		y, _ := strconv.Atoi(b[1])
		return x - y
	})
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(s.out, "."+row+"-*")
	if err != nil {
		return err
	}
	w := csv.NewWriter(tmp)
	_ = w.Write(header) // WriteAll has its error
	err = errors.Join(w.WriteAll(lines), tmp.Chmod(0o644), tmp.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), s.file(row))
}

func readLines(path string) ([][]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = len(header)
	lines, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 || !slices.Equal(lines[0], header) {
		return nil, fmt.Errorf("%s: its first line is not %v", path, header)
	}
	return lines[1:], nil
}

// figuresOf reads a row's file.
func (s *settings) figuresOf(row string) ([]figure, error) {
	lines, err := readLines(s.file(row))
	var out []figure
	for i, l := range lines {
		f := figure{measure: l[3], machine: l[6]}
		var errs [4]error
		f.seed, errs[0] = strconv.Atoi(l[1])
		f.epoch, errs[1] = strconv.Atoi(l[2])
		f.value, errs[2] = strconv.ParseFloat(l[4], 64)
		if l[5] != "" {
			f.chance = new(float64)
			*f.chance, errs[3] = strconv.ParseFloat(l[5], 64)
		}
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", s.file(row), i+2, err)
		}
		out = append(out, f)
	}
	return out, err
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }
