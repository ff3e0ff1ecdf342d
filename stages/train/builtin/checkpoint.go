package builtin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sela/pipeline"
	"sela/stages/internal/onnx/grad"
)

// A checkpoint file is magic, the length of the header (uint64, little-endian),
// the header as JSON, the values of every state in its order (float32,
// little-endian), and the sha256 of all that.
const (
	magic     = "sela checkpoint 1\n"
	maxHeader = 64 << 20
)

// What to do about a checkpoint that cannot be used: one of this training's own,
// and one of the part before.
const (
	beginAnew   = "remove it to begin anew"
	anotherPart = "give that of the part before in train.builtin.after"
)

// Identity says by digest what a training is a training of. A checkpoint goes on
// only with the same.
type Identity struct {
	Network       string `json:"network"`         // the model's files
	Init          string `json:"init,omitempty"`  // the model the trunk started from
	After         string `json:"after,omitempty"` // the checkpoint of the part before
	Labels        string `json:"labels"`          // the manifest of the label set
	Preprocessing string `json:"preprocessing"`
	Spec          string `json:"spec"` // what of train.builtin decides the result
}

// difference says in words in what two identities differ.
func (i Identity) difference(other Identity) string {
	var diff []string
	for _, p := range []struct{ name, mine, theirs string }{
		{"network", i.Network, other.Network}, {"init", i.Init, other.Init}, {"after", i.After, other.After}, {"labels", i.Labels, other.Labels},
		{"preprocessing", i.Preprocessing, other.Preprocessing}, {"train.builtin", i.Spec, other.Spec},
	} {
		if p.mine != p.theirs {
			diff = append(diff, fmt.Sprintf("%s: %.12s, now %.12s", p.name, p.mine, p.theirs))
		}
	}
	return strings.Join(diff, "; ")
}

// header is all of a checkpoint but the values. Epochs and steps are those of the
// whole training, whatever part of it this is.
type header struct {
	Identity Identity  `json:"identity"`
	Epoch    int       `json:"epoch"`   // epochs done
	Step     int       `json:"step"`    // steps done of the next
	Sums     sums      `json:"sums"`    // of the steps behind the last of the metrics
	Metrics  []Metrics `json:"metrics"` // at least one for each epoch done
	States   []state   `json:"states"`
	// Forms are those of the gradients, which the last bits depend on.
	Forms grad.Forms `json:"forms,omitempty"`
}

type state struct {
	Name string  `json:"name"`
	Dims []int64 `json:"dims"`
}

func statesOf(step *grad.Step) []state {
	list := make([]state, len(step.State))
	for i, s := range step.State {
		list[i] = state{s.In, s.Dims}
	}
	return list
}

// save writes a checkpoint to path, whole or not at all, durably. values must
// be finite: a checkpoint of what cannot go on would replace one that can.
func save(path string, h header, values [][]float32) error {
	for i, list := range values {
		for _, x := range list {
			if !finite(float64(x)) {
				return pipeline.BadConfig(fmt.Errorf("%s has a value that is not finite (%v)", h.States[i].Name, x))
			}
		}
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return replace(path, func(w io.Writer) error {
		sum := sha256.New()
		both := io.MultiWriter(w, sum)
		head := binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(raw)))
		if _, err := both.Write(append(head, raw...)); err != nil {
			return err
		}
		buf := make([]byte, 0, 1<<16)
		for _, list := range values {
			for part := range slices.Chunk(list, cap(buf)/4) {
				buf = buf[:0]
				for _, x := range part {
					buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
				}
				if _, err := both.Write(buf); err != nil {
					return err
				}
			}
		}
		_, err := w.Write(sum.Sum(nil))
		return err
	})
}

// unfinished is what the names of files that [replace] writes begin with.
func unfinished(path string) string { return "." + filepath.Base(path) + "-" }

// tidy removes from dir what a process that was killed left half written.
func tidy(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return pipeline.BadConfig(err)
	}
	for _, e := range list {
		for _, file := range []string{CheckpointFile, MetricsFile} {
			if strings.HasPrefix(e.Name(), unfinished(file)) {
				err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	return pipeline.BadConfig(err)
}

// replace writes a file beside path, makes it durable and gives it path's name.
func replace(path string, write func(io.Writer) error) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, unfinished(path)+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	err = write(w)
	if err = errors.Join(err, w.Flush(), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil // the file is there; only its name may not outlive a crash of the machine
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// restore reads a checkpoint into values, which are in the order of want.States.
// A file whose values have other names or shapes is an error of class Config, a
// damaged one of class Data.
// remedy says what to do then.
func restore(path, remedy string, want header, values [][]float32) (*header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, pipeline.BadConfig(fmt.Errorf("checkpoint: %w", err))
	}
	defer f.Close()
	h, err := read(f, want, values)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w: %s", path, err, remedy)
	}
	return h, nil
}

func read(f io.Reader, want header, values [][]float32) (*header, error) {
	sum := sha256.New()
	buffered := bufio.NewReaderSize(f, 1<<20)
	r := io.TeeReader(buffered, sum)
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(h.States, want.States, func(a, b state) bool { return a.Name == b.Name && slices.Equal(a.Dims, b.Dims) }) {
		return nil, pipeline.BadConfig(fmt.Errorf("it is of another network, with other names or shapes: %s", otherStates(h.States, want.States)))
	}
	heads := len(want.Sums.Loss)
	if len(h.Sums.Loss) != heads || len(h.Sums.Correct) != heads || len(h.Sums.Weight) != heads || h.Epoch < 0 || h.Step < 0 || len(h.Metrics) < h.Epoch {
		return nil, damaged(errors.New("its header makes no sense"))
	}
	buf := make([]byte, 1<<16)
	for _, list := range values {
		for part := range slices.Chunk(list, len(buf)/4) {
			raw := buf[:4*len(part)]
			if _, err := io.ReadFull(r, raw); err != nil {
				return nil, damaged(err)
			}
			for i := range part {
				part[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
			}
		}
	}
	return h, checkSum(buffered, sum)
}

// otherStates says in words in what two lists of states differ.
func otherStates(have, want []state) string {
	for i, w := range want {
		if i == len(have) {
			return fmt.Sprintf("it lacks %s", w.Name)
		}
		if h := have[i]; h.Name != w.Name || !slices.Equal(h.Dims, w.Dims) {
			return fmt.Sprintf("it has %s %v where this one has %s %v (other heads, another trunk, or another optimiser)", h.Name, h.Dims, w.Name, w.Dims)
		}
	}
	return fmt.Sprintf("this one lacks %s", have[len(want)].Name)
}

// partBefore reads of the checkpoint of another part the header and the sha256
// off its end, which [restore] holds against the content.
func partBefore(path string) (*header, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", pipeline.BadConfig(fmt.Errorf("train.builtin.after: %w", err))
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return nil, "", fmt.Errorf("checkpoint %s: %w: %s", path, err, anotherPart)
	}
	sum := make([]byte, sha256.Size)
	if _, err = f.Seek(-sha256.Size, io.SeekEnd); err == nil {
		_, err = io.ReadFull(f, sum)
	}
	return h, hex.EncodeToString(sum), err
}

// peek reads the header of a checkpoint, nil where there is no file. One of
// another network, other labels or another spec is an error of class Config that
// says so.
func peek(path string, want Identity) (*header, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := readHeader(f)
	if err == nil {
		if diff := h.Identity.difference(want); diff != "" {
			err = pipeline.BadConfig(fmt.Errorf("it is of another training (%s)", diff))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w: %s", path, err, beginAnew)
	}
	return h, nil
}

func readHeader(r io.Reader) (*header, error) {
	fixed := make([]byte, len(magic)+8)
	if _, err := io.ReadFull(r, fixed); err != nil || string(fixed[:len(magic)]) != magic {
		return nil, damaged(errors.New("it does not begin as one"))
	}
	n := binary.LittleEndian.Uint64(fixed[len(magic):])
	if n > maxHeader {
		return nil, damaged(fmt.Errorf("a header of %d bytes", n))
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, damaged(err)
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, damaged(err)
	}
	return &h, nil
}

func checkSum(r io.Reader, sum hash.Hash) error {
	rest, err := io.ReadAll(io.LimitReader(r, sha256.Size+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(rest, sum.Sum(nil)) {
		return damaged(errors.New("its sha256 is wrong"))
	}
	return nil
}

func damaged(err error) error {
	return pipeline.BadData(fmt.Errorf("damaged: %w", err))
}
