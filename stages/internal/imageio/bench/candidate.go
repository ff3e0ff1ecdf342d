//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sela/stages/internal/imageio"
)

// reference is the candidate whose pixels and speed all are compared with.
const reference = "Pillow"

// candidate is a process that turns files into tensors. It answers requests,
// one line of JSON each: those of peers.py.
type candidate struct {
	name     string
	ours     bool // imageio: takes an order, and knows allocations
	filters  bool // takes part in the section of that name
	packages string
	command  *exec.Cmd
	in       io.WriteCloser
	out      *json.Decoder
}

// answer is what a candidate says; which fields are set depends on the request.
type answer struct {
	Error    string         `json:"error"`
	Package  string         `json:"package"`
	Failed   map[int]string `json:"failed"` // images, by number, and why
	Seconds  float64        `json:"seconds"`
	Wall     float64        `json:"wall"`
	Steps    *steps         `json:"steps"`
	Bytes    float64        `json:"bytes"`   // allocated, of all images of a round
	Objects  float64        `json:"objects"` // likewise
	Copy     float64        `json:"copy"`    // bytes per second
	Multiply float64        `json:"multiply"`
}

// steps are seconds of the core's time.
type steps struct {
	Decode    float64 `json:"decode"`
	Resize    float64 `json:"resize"` // and crop
	Normalise float64 `json:"normalise"`
}

// start starts every candidate there is, ours first, and says which are
// missing and why.
func (b *bench) start(ctx context.Context) (missing []string, err error) {
	b.order = imageio.HorizontalFirst
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	add := func(c *candidate, env string, command ...string) error {
		c.command = exec.CommandContext(ctx, command[0], command[1:]...)
		c.command.Env = append(os.Environ(), "GOMAXPROCS=1", "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1", env)
		if err := c.start(b.core); err != nil {
			return err
		}
		b.candidates = append(b.candidates, c)
		a, err := c.ask(map[string]any{"do": "hello"})
		if err != nil {
			b.candidates = b.candidates[:len(b.candidates)-1]
			err = errors.Join(err, c.stop())
			if c.ours {
				return err
			}
			missing = append(missing, fmt.Sprintf("%s: %v", c.name, err))
			return nil
		}
		c.packages = a.Package
		return nil
	}
	if err := add(&candidate{name: "ours", ours: true, filters: true}, "", self, "-"+serveFlag, string(imageio.Exact)); err != nil {
		return nil, err
	}
	for _, other := range b.also {
		if err := add(&candidate{name: "ours, " + other.name, ours: true, filters: true}, "", other.path, "-"+serveFlag, string(imageio.Exact)); err != nil {
			return nil, err
		}
	}
	if strings.Contains(b.candidates[0].packages, "libjpeg") {
		err = add(&candidate{name: "ours, scaled", ours: true}, "", self, "-"+serveFlag, string(imageio.Scaled))
	} else {
		missing = append(missing, "ours, scaled: this build has no libjpeg")
	}
	if err != nil {
		return nil, err
	}
	python, full := b.python, !b.quick
	if _, err := os.Stat(python); err != nil {
		if python, err = exec.LookPath("python3"); err != nil {
			return append(missing, "peers: there is no "+b.python+" and no python3"), nil
		}
		full = false
	}
	peer := func(name, env, peer string, filters bool) error {
		return add(&candidate{name: name, filters: filters}, env, python, filepath.Join(b.scripts, "peers.py"), peer)
	}
	err = peer(reference, "", "pillow", true)
	if c := b.find(reference); c != nil {
		b.order = pillowOrder(c.packages)
	}
	if !full {
		return append(missing, "all peers but Pillow: a plain make bench-images installs them"), err
	}
	if _, bad := os.Stat(b.simd); bad == nil {
		err = errors.Join(err, peer("Pillow-SIMD", "PYTHONPATH="+b.simd, "pillow", true))
	} else {
		missing = append(missing, "Pillow-SIMD: it is not in "+b.simd)
	}
	return missing, errors.Join(err,
		peer("Pillow, draft mode", "", "pillow-draft", false),
		peer("torchvision on Pillow", "", "torchvision", false),
		peer("torchvision decode_jpeg, tensors", "", "torchvision-tensor", true),
		peer("OpenCV", "", "opencv", true),
		peer("OpenCV, INTER_AREA", "", "opencv-area", false))
}

// find returns the candidate of that name, nil if it is missing.
func (b *bench) find(name string) *candidate {
	for _, c := range b.candidates {
		if c.name == name {
			return c
		}
	}
	return nil
}

// stop ends all candidates.
func (b *bench) stop() error {
	var all []error
	for _, c := range b.candidates {
		all = append(all, c.stop())
	}
	return errors.Join(all...)
}

// start starts the process on the given core.
func (c *candidate) start(core int) error {
	in, err := c.command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		return err
	}
	c.command.Stderr = os.Stderr
	c.command.WaitDelay = 10 * time.Second
	c.in, c.out = in, json.NewDecoder(out)
	if err := pinned(core, c.command.Start); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	return nil
}

func (c *candidate) stop() error {
	if err := errors.Join(c.in.Close(), c.command.Wait()); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

// refused is an answer's error: the candidate cannot do this, but goes on.
type refused struct{ why string }

func (r refused) Error() string { return r.why }

// ask returns the candidate's answer.
func (c *candidate) ask(request map[string]any) (*answer, error) {
	raw, err := json.Marshal(request)
	if err == nil {
		_, err = c.in.Write(append(raw, '\n'))
	}
	a := new(answer)
	if err == nil {
		err = c.out.Decode(a)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %s: %w", c.name, request["do"], err)
	case a.Error != "":
		return nil, refused{a.Error}
	}
	return a, nil
}

// pillowOrder returns the order of passes of the Pillow that a candidate's
// packages name.
func pillowOrder(packages string) imageio.Order {
	_, version, _ := strings.Cut(packages, "Pillow ")
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 13 {
		return imageio.Pillow13
	}
	return imageio.HorizontalFirst
}

// pinnable returns the core if this process may run on it, or the last that it
// may run on for -1.
func pinnable(core int) (int, error) {
	var allowed unix.CPUSet
	last := core
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, fmt.Errorf("processors of this process: %w", err)
	}
	if core >= 0 && !allowed.IsSet(core) {
		return 0, fmt.Errorf("-core: this process may not run on core %d", core)
	}
	for i := range 8 * int(unsafe.Sizeof(allowed)) {
		if core < 0 && allowed.IsSet(i) {
			last = i
		}
	}
	return last, nil
}

// pinned calls f on a thread that may only run on one core, as then may the
// processes that f starts.
func pinned(core int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	only.Set(core)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return err
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &before))
}
