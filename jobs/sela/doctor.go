package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/extract"
	"sela/stages/list"
	"sela/stages/model"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor [JOB]", Short: "Say what was found here, and what stands in a job's way", Args: cobra.MaximumNArgs(1),
		Long: "Looks at this machine: the ONNX Runtime library, its execution providers, processor, memory, disk. With a job also at what a run of it needs: each bucket is tried (work and labels by writing and deleting a small object), the model is loaded and held against the job.\n\n" +
			"Each line is ok, FAIL with the remedy, or none for what is not there and not needed. The exit code is that of the first failure.\n\n" + exitTable(),
		RunE: func(cmd *cobra.Command, args []string) error {
			d := &doctor{out: os.Stderr}
			d.machine()
			if len(args) > 0 {
				d.job(cmd.Context(), args[0])
			} else {
				d.installation(pipeline.DefaultJob())
			}
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			a.result = map[string]any{"command": "doctor", "version": version(), "checks": d.findings}
			return d.verdict()
		},
	}
}

// finding is one line of the diagnosis.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, FAIL or none
	Detail string `json:"detail"`
}

// doctor prints and gathers findings.
type doctor struct {
	out      io.Writer
	findings []finding
	first    error // the first failure
	failures int

	runtime *model.Runtime // nil if there is none
}

func (d *doctor) say(check, status, detail string) {
	d.findings = append(d.findings, finding{check, status, detail})
	// A detail of several lines is indented to its column.
	fmt.Fprintf(d.out, "%-4s  %-17s  %s\n", status, check, strings.ReplaceAll(detail, "\n", "\n"+strings.Repeat(" ", 25)))
}

func (d *doctor) ok(check, format string, args ...any) {
	d.say(check, "ok", fmt.Sprintf(format, args...))
}

func (d *doctor) fail(check string, err error) {
	d.failures++
	if d.first == nil {
		d.first = fmt.Errorf("%s: %w", check, err)
	}
	d.say(check, "FAIL", err.Error())
}

// report is ok with the detail, or the failure.
func (d *doctor) report(check string, err error, format string, args ...any) {
	if err != nil {
		d.fail(check, err)
		return
	}
	d.ok(check, format, args...)
}

// verdict is the first failure, whose class decides the exit code.
func (d *doctor) verdict() error {
	if d.first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d checks failed; first %w", d.failures, len(d.findings), d.first)
}

func (d *doctor) machine() {
	d.ok("sela", "%s, %s, %s/%s", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	features := "none of AVX2, AVX-512: the model runs several times slower"
	if names := vectorFeatures(); len(names) > 0 {
		features = strings.Join(names, ", ")
	}
	d.ok("decoder", "JPEG by %s", extract.Decoder())
	d.ok("processor", "%d cores, %d of them for this process; %s (class %s)", runtime.NumCPU(), runtime.GOMAXPROCS(0), features, processorClass())
	if limit := memoryLimit(); limit > 0 {
		d.ok("memory", "%s", human(limit))
	} else {
		d.say("memory", "none", "size unknown")
	}
}

// vectorFeatures names the instruction sets that ONNX Runtime's kernels choose
// by.
func vectorFeatures() []string {
	var names []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"AVX2", cpu.X86.HasAVX2}, {"FMA", cpu.X86.HasFMA}, {"AVX-512F", cpu.X86.HasAVX512F}, {"AVX-512BW", cpu.X86.HasAVX512BW},
		{"AVX-512VNNI", cpu.X86.HasAVX512VNNI}, {"NEON", cpu.ARM64.HasASIMD}, {"SVE", cpu.ARM64.HasSVE},
	} {
		if f.has {
			names = append(names, f.name)
		}
	}
	return names
}

// installation looks at what the job needs of this machine.
func (d *doctor) installation(job *pipeline.Job) {
	d.scratch(scratchFolder(job))
	d.providers(job)
}

// providers looks for the library and tries its providers. Those that the job
// asks for have to be there.
func (d *doctor) providers(job *pipeline.Job) {
	library, err := findLibrary(job.Runtime.Library)
	if err == nil {
		d.runtime, err = model.OpenRuntime(library)
	}
	if err != nil {
		d.fail("onnxruntime", err)
		return
	}
	library = d.runtime.Library()
	d.ok("onnxruntime", "%s, version %s, sha256 %s", library.Path, library.Version, library.SHA256)
	for _, p := range d.runtime.Providers() {
		name := "provider " + p.Name
		switch {
		case p.Err == nil:
			d.ok(name, "available")
		case slices.Contains(job.Runtime.Providers, p.Name), job.Solve.Device == p.Name:
			d.fail(name, pipeline.BadConfig(p.Err))
		default:
			d.say(name, "none", p.Err.Error())
		}
	}
}

// scratch makes sure that files can be written where a run keeps its own.
func (d *doctor) scratch(dir string) {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, "doctor-"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		d.fail("scratch", pipeline.BadConfig(fmt.Errorf("%w: name a folder that can be written with local.dir, or TMPDIR", err)))
		return
	}
	free := "free space unknown"
	if n, ok := freeBytes(dir); ok {
		free = human(n) + " free"
	}
	d.ok("scratch", "%s, %s", dir, free)
}

// job examines what a run of the job needs.
func (d *doctor) job(ctx context.Context, path string) {
	job, err := pipeline.LoadJob(path)
	if err != nil {
		d.fail("job", err)
		d.installation(pipeline.DefaultJob())
		return
	}
	d.ok("job", "%s (%s)", job.Name, path)
	d.installation(job)
	d.images(ctx, job)
	d.place(ctx, "work", job, job.Work.Bucket)
	d.place(ctx, "labels", job, job.Labels.Bucket)
	d.model(ctx, job)
	d.trigger(job)
}

func (d *doctor) open(ctx context.Context, job *pipeline.Job, url string) (*bucket.Bucket, error) {
	b, err := bucket.Open(ctx, url, bucketOptions(job))
	return b, pipeline.BadConfig(err)
}

// images lists and reads the first image.
func (d *doctor) images(ctx context.Context, job *pipeline.Job) {
	b, err := d.open(ctx, job, job.Images.Bucket)
	if err != nil {
		d.fail("images", err)
		return
	}
	defer b.Close()
	first, err := list.First(ctx, b, job.Images, 1)
	if err != nil {
		d.fail("images", fmt.Errorf("%s: %w", b.URL(), err))
		return
	}
	img := first[0]
	err = b.ReadRange(ctx, img.Key, img.Offset, make([]byte, min(img.Size, 1<<10)))
	d.report("images", err, "%s can be listed and read; first image: %s", b.URL(), strings.TrimSpace(img.Key+" "+img.Member))
}

// place probes a bucket that a run writes.
func (d *doctor) place(ctx context.Context, check string, job *pipeline.Job, url string) {
	b, err := d.open(ctx, job, creating(url))
	if err != nil {
		d.fail(check, err)
		return
	}
	defer b.Close()
	err = b.Probe(ctx)
	if errors.Is(err, bucket.ErrOverwrites) {
		err = fmt.Errorf("%w: use a store that knows conditional writes, or a folder", err)
	}
	d.report(check, err, "%s can be written and read, and honours create-if-absent", b.URL())
}

// model loads the model and, where there is a runtime, holds it against the job.
func (d *doctor) model(ctx context.Context, job *pipeline.Job) {
	path, err := model.Local(ctx, job.Model.Path, scratchFolder(job))
	if err != nil {
		d.fail("model", err)
		return
	}
	job.Model.Path = path // messages name it, and a URL may hold credentials
	graph, digest, err := model.Load(ctx, path)
	if err != nil {
		d.fail("model", err)
		return
	}
	design, err := extract.NewDesign(job, graph)
	if err != nil {
		d.fail("model", err)
		return
	}
	note := ""
	if p := model.Preprocessing(graph); p != "" && p != design.Spec.Fingerprint() {
		note = "; it was calibrated with another preprocessing than the job's: see model new --calibrate-for"
	}
	d.ok("model", "%s, digest %s, %d images a batch%s", path, digest, design.Batch, note)
	if d.runtime == nil {
		d.say("model run", "none", "not tried without ONNX Runtime")
		return
	}
	c, err := extract.Open(ctx, d.runtime, job, design, scratchFolder(job))
	if err != nil {
		d.fail("model run", err)
		return
	}
	clusters := make([]int, len(c.Heads))
	for i, h := range c.Heads {
		clusters[i] = h.Clusters
	}
	d.report("model run", c.Close(), "%d heads of %v clusters, on %s", len(clusters), describeClusters(clusters), strings.Join(job.Runtime.Providers, ", "))
}

// trigger checks what can be known before training is triggered; it sends
// nothing.
func (d *doctor) trigger(job *pipeline.Job) {
	_, err := (&session{job: job}).trigger()
	// What stands in braces is known only in a run.
	if err == nil && job.Train.Type == "command" && !strings.Contains(job.Train.Command[0], "{") {
		if _, missing := exec.LookPath(job.Train.Command[0]); missing != nil {
			err = pipeline.BadConfig(fmt.Errorf("train.command: %w: give its path, or put it into PATH", missing))
		}
	}
	d.report("train", err, "%s", job.Train.Type)
}
