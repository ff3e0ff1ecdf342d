package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"sela/pipeline"
)

const schedules = "../schedule/"

// parses holds a command line of a ready file to the flags that there are.
func parses(t *testing.T, where string, args []string) {
	t.Helper()
	cmd, rest, err := (&app{}).command().Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil {
		t.Errorf("%s: sela %s: %v", where, strings.Join(args, " "), err)
	}
}

// final are the exit codes after which nothing is tried again.
func final() (codes []int32) {
	for _, c := range []pipeline.Class{pipeline.Usage, pipeline.Data, pipeline.Bug, pipeline.Config} {
		codes = append(codes, int32(pipeline.ExitCode(classError(c), 0)))
	}
	slices.Sort(codes)
	return codes
}

func classError(c pipeline.Class) error {
	switch c {
	case pipeline.Usage:
		return pipeline.BadUsage(os.ErrInvalid)
	case pipeline.Data:
		return pipeline.BadData(os.ErrInvalid)
	case pipeline.Config:
		return pipeline.BadConfig(os.ErrInvalid)
	}
	return os.ErrInvalid
}

func TestCrontab(t *testing.T) {
	five := regexp.MustCompile(`^(\d+|\*)$`)
	lines := 0
	for _, line := range strings.Split(file(t, schedules+"crontab"), "\n") {
		if line == "" || line[0] == '#' || regexp.MustCompile(`^[A-Z_]+=`).MatchString(line) {
			continue
		}
		f := strings.Fields(line)
		for i, part := range f[:5] {
			if !five.MatchString(part) {
				t.Errorf("field %d of %q", i+1, line)
			}
		}
		lines++
		if strings.Contains(line, "%") {
			t.Errorf("cron reads %% as a line's end: %q", line)
		}
		command := strings.Join(f[6:], " ")
		if out, err := exec.Command("sh", "-n", "-c", command).CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", command, err, out)
		}
		begin, end := slices.Index(f[6:], "sela"), strings.Index(command, " >>")
		parses(t, "crontab", strings.Fields(command[:end])[begin+1:])
	}
	if lines != 2 {
		t.Errorf("%d commands, want 2", lines)
	}
}

func TestSystemdUnits(t *testing.T) {
	service := file(t, schedules+"sela@.service")
	for _, want := range []string{"SuccessExitStatus=99\n", "RestartPreventExitStatus=64 65 70 78\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("sela@.service lacks %q", want)
		}
	}
	start := regexp.MustCompile(`(?m)^ExecStart=\S+/sela (.*)$`).FindStringSubmatch(service)
	if start == nil {
		t.Fatal("sela@.service starts something else")
	}
	parses(t, "sela@.service", strings.Fields(start[1]))
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here: the units are not verified whole")
	}
	dir := t.TempDir()
	for _, name := range []string{"sela@.service", "sela@.timer"} {
		// The binary and its user are not on this machine.
		text := strings.Replace(file(t, schedules+name), "/usr/local/bin/sela", "/bin/true", 1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "sela@labels.service"), filepath.Join(dir, "sela@labels.timer"))
	for _, name := range []string{"service", "timer"} {
		if err := os.Symlink("sela@."+name, filepath.Join(dir, "sela@labels."+name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "sela@") {
		t.Errorf("systemd-analyze: %v: %s", err, out)
	}
}

// TestKubernetes reads the files with Kubernetes' own types, in which an unknown
// or a misplaced field is an error.
func TestKubernetes(t *testing.T) {
	var cron, patch batch.CronJob
	var extract batch.Job
	for name, into := range map[string]any{"cronjob.yaml": &cron, "gpu-patch.yaml": &patch, "extract.yaml": &extract} {
		if err := yaml.UnmarshalStrict([]byte(file(t, schedules+"kubernetes/"+name)), into); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	image := regexp.MustCompile(`^sela:[a-z]+$`)
	check := func(name string, s batch.JobSpec) {
		pod := s.Template.Spec
		if pod.RestartPolicy != core.RestartPolicyNever {
			t.Errorf("%s: a podFailurePolicy needs restartPolicy Never", name)
		}
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
		}
		policed := map[string]bool{}
		for _, r := range s.PodFailurePolicy.Rules {
			if r.OnExitCodes == nil {
				continue
			}
			policed[*r.OnExitCodes.ContainerName] = true
			if r.Action != batch.PodFailurePolicyActionFailJob || !slices.Equal(r.OnExitCodes.Values, final()) {
				t.Errorf("%s: %s: %v is for %v", name, r.Action, r.OnExitCodes.Values, final())
			}
		}
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			if !policed[c.Name] || !image.MatchString(c.Image) || c.Resources.Limits.Memory().IsZero() || *c.SecurityContext.AllowPrivilegeEscalation {
				t.Errorf("%s: container %s: exit codes policed %v, image %s, limits %v", name, c.Name, policed[c.Name], c.Image, c.Resources.Limits)
			}
			for _, v := range c.VolumeMounts {
				if !volumes[v.Name] {
					t.Errorf("%s: container %s mounts %s, which is no volume", name, c.Name, v.Name)
				}
			}
			args := slices.Clone(c.Args)
			for i, a := range args {
				for _, e := range c.Env {
					a = strings.ReplaceAll(a, "$("+e.Name+")", "0")
				}
				if args[i] = a; strings.Contains(a, "$") {
					t.Errorf("%s: %s has a variable that its container lacks", name, a)
				}
			}
			parses(t, name, args)
		}
	}
	check("cronjob.yaml", cron.Spec.JobTemplate.Spec)
	check("extract.yaml", extract.Spec)
	if n := *extract.Spec.Completions; *extract.Spec.CompletionMode != batch.IndexedCompletion || !slices.Contains(extract.Spec.Template.Spec.Containers[0].Args, "$(INDEX)/4") || n != 4 {
		t.Errorf("extract.yaml: %d completions, %v", n, extract.Spec.Template.Spec.Containers[0].Args)
	}
	pod := patch.Spec.JobTemplate.Spec.Template.Spec
	if patch.Name != cron.Name || pod.Containers[0].Name != cron.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Name || len(pod.NodeSelector) == 0 || pod.Containers[0].Resources.Limits.Name("nvidia.com/gpu", "").Value() != 1 {
		t.Errorf("gpu-patch.yaml patches %s, %+v", patch.Name, pod)
	}
}

func TestDockerfiles(t *testing.T) {
	targets := regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(file(t, "../../Makefile"), -1)
	for _, name := range []string{"Dockerfile", "Dockerfile.cuda"} {
		stages, user := 0, ""
		scanner := bufio.NewScanner(strings.NewReader(strings.ReplaceAll(file(t, schedules+name), "\\\n", "")))
		for scanner.Scan() {
			instruction, rest, _ := strings.Cut(scanner.Text(), " ")
			switch instruction {
			case "FROM":
				stages, user = stages+1, ""
				if image := strings.Fields(rest)[0]; !regexp.MustCompile(`^[a-z]+:[a-z0-9.-]+$`).MatchString(image) {
					t.Errorf("%s: base image %s has no tag, or a host", name, image)
				}
			case "USER":
				user = rest
			case "COPY":
				for _, source := range strings.Fields(rest)[:len(strings.Fields(rest))-1] {
					if _, err := os.Stat("../../" + source); !strings.HasPrefix(rest, "--from=build ") && err != nil {
						t.Errorf("%s: COPY %s: %v", name, rest, err)
					}
				}
			case "RUN":
				make, _, _ := strings.Cut(rest, "&&")
				for _, target := range strings.Fields(make)[1:] {
					if strings.HasPrefix(rest, "make ") && !slices.ContainsFunc(targets, func(m []string) bool { return m[1] == target }) {
						t.Errorf("%s: RUN %s: there is no target %s", name, rest, target)
					}
				}
			case "", "#", "WORKDIR", "ENV", "ENTRYPOINT":
			default:
				t.Errorf("%s: unknown instruction in %q", name, scanner.Text())
			}
		}
		if stages != 2 || user != "65532:65532" {
			t.Errorf("%s: %d stages, the last one of user %q", name, stages, user)
		}
	}
}

// TestMappedRun: processes of one run share its lease and its work, and an exit
// with 0 says that nothing is new where that is asked for.
func TestMappedRun(t *testing.T) {
	r := newRig(t, "extract: {shard_rows: 1024}", "job: mapped")
	together := func(args ...[]string) {
		t.Helper()
		var ends []func()
		for _, a := range args {
			cmd, stdout, stderr := r.command(a...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, func() {
				if out := r.outcome(cmd, cmd.Wait(), stdout, stderr); out.code != 0 {
					t.Errorf("%v: exit %d: %s", a, out.code, out.stderr)
				}
			})
		}
		for _, end := range ends {
			end()
		}
	}
	list := []string{"list", "job.yaml", "--run-id", "one"}
	together(list, list)
	together([]string{"extract", "job.yaml", "--run-id", "one", "--shard", "0/2"}, []string{"extract", "job.yaml", "--run-id", "one", "--shard", "1/2"})
	mapped := r.want(0, "run", "job.yaml", "--run-id", "one")
	alone := r.want(0, "run", "job.yaml", "--run-id", "two")
	if a, b := r.published("one"), r.published("two"); len(a) == 0 || mapped.result["images"] != alone.result["images"] {
		t.Errorf("%v and %v, %d and %d files", mapped.result, alone.result, len(a), len(b))
	}
	if out := r.want(0, "run", "job.yaml", "--nothing-new-ok"); out.result["status"] != "nothing new" || out.result["exit_code"] != 0. {
		t.Errorf("nothing new: %v", out.result)
	}
	r.want(99, "run", "job.yaml")
}
