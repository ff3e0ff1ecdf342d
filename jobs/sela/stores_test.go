package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sela/pipeline/bucket"
	"sela/pipeline/bucket/buckettest"
)

// place is an empty place on a store, with the images of the rigs in it.
type place struct {
	t    *testing.T
	url  *url.URL
	root *bucket.Bucket
}

// newPlace copies the first images to a place. The rig must have been made
// before.
func newPlace(t *testing.T, u *url.URL, images int) *place {
	t.Helper()
	b, err := bucket.Open(t.Context(), u.String(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	dir, n := filepath.Join(fixture.dir, "images"), 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || n == images {
			return err
		}
		n++
		key, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return b.Upload(t.Context(), "images/"+filepath.ToSlash(key), path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return &place{t, u, b}
}

// under is the URL of a folder of the place, reached through via.
func under(via *url.URL, folder string) string {
	u := *via
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + folder
	return u.String()
}

// job makes the rig's job one whose images, work and labels lie in the place,
// reached through via.
func (p *place) job(r *rig, via *url.URL, folder string, fields ...string) {
	r.t.Helper()
	r.job(append([]string{
		fmt.Sprintf("images: {bucket: %q}", under(via, "images")),
		fmt.Sprintf("work: {bucket: %q}", under(via, folder+"/work")),
		fmt.Sprintf("labels: {bucket: %q}", under(via, folder+"/labels")),
	}, fields...)...)
}

// published returns the label files of a run, by name.
func (p *place) published(folder, run string) map[string]string {
	p.t.Helper()
	files, prefix := map[string]string{}, folder+"/labels/runs/"+run+"/"
	err := p.root.List(p.t.Context(), prefix+"labels/", func(o bucket.Object) error {
		raw, err := p.root.Get(p.t.Context(), o.Key)
		files[strings.TrimPrefix(o.Key, prefix)] = string(raw)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return files
}

// await waits until a commit of a stage lies in the place, or the run is done.
func (p *place) await(ctx context.Context, folder, run, stage string, done <-chan error) (ended bool, err error) {
	for {
		n := 0
		err := p.root.List(ctx, folder+"/work/runs/"+run+"/commits/"+stage+"/", func(bucket.Object) error { n++; return nil })
		if n > 0 || err != nil {
			return false, err
		}
		select {
		case <-done:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stores are a server for S3 inside the test, and those of make test-stores.
func stores(t *testing.T, test func(t *testing.T, u *url.URL)) {
	t.Run("s3 inside", func(t *testing.T) { test(t, buckettest.S3(t, "bucket")) })
	for _, scheme := range buckettest.Schemes {
		t.Run(scheme, func(t *testing.T) {
			u := buckettest.Server(t, scheme)
			b, err := bucket.Open(t.Context(), u.String(), bucket.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := buckettest.MakeContainer(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			test(t, u)
		})
	}
}

// TestStoreRunKilledAndResumed: images, work and labels on a store; the process
// is killed after each stage, and the labels are those of a run on local
// folders that nothing disturbed.
func TestStoreRunKilledAndResumed(t *testing.T) {
	local := newRig(t, "extract: {shard_rows: 1024}", "label: {max_count_ratio: 8, part_rows: 1024}")
	local.want(0, "run", "job.yaml", "--run-id", "here")
	want := local.published("here")
	stores(t, func(t *testing.T, u *url.URL) {
		r := newRig(t)
		p := newPlace(t, u, -1)
		p.job(r, u, "killed", "extract: {shard_rows: 1024}", "label: {max_count_ratio: 8, part_rows: 1024}")
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		kills := 0
		for _, stage := range []string{"list", "extract", "solve", "label"} {
			cmd, _, stderr := r.command("run", "job.yaml", "--run-id", "there", "-v")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			ended, err := p.await(ctx, "killed", "there", stage, done)
			if err != nil {
				_ = cmd.Process.Kill()
				<-done
				t.Fatalf("stage %s: %v\n%s", stage, err, stderr)
			}
			if ended {
				continue
			}
			if err := cmd.Process.Kill(); err == nil {
				kills++
			}
			<-done
		}
		out := r.want(0, "run", "job.yaml", "--run-id", "there")
		same(t, p.published("killed", "there"), want)
		if kills < 3 {
			t.Errorf("only %d kills hit a running process", kills)
		}
		r.want(0, "verify", "job.yaml", "--sample", "4")
		r.want(99, "run", "job.yaml")
		if text := fmt.Sprint(out.result); strings.Contains(text, "endpoint") || strings.Contains(text, "domain=") {
			t.Errorf("the result holds parameters of URLs: %s", text)
		}
	})
}

// TestStoreOutage: the store stops serving in the middle of a run. The run waits
// it out and says so; with fewer attempts it ends with 75 and the same command
// resumes it.
func TestStoreOutage(t *testing.T) {
	r := newRig(t)
	through, proxy := buckettest.Through(t, buckettest.S3(t, "bucket"))
	p := newPlace(t, through, 128)
	outage := func(unanswered int64) {
		var refused atomic.Int64
		proxy.Spoil(func(q *http.Request) *buckettest.Spoil {
			// It begins when the images have been listed, for all requests.
			if refused.Load() == 0 && (q.Method != http.MethodPut || !strings.Contains(q.URL.Path, "/commits/list/")) || refused.Load() >= unanswered {
				return nil
			}
			refused.Add(1)
			return &buckettest.Spoil{Status: 503, Header: http.Header{"Retry-After": {"1"}},
				Body: `<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`}
		})
	}
	outage(4)
	p.job(r, through, "long")
	out := r.want(0, "run", "job.yaml", "--run-id", "waits")
	if !strings.Contains(out.stderr, "made again") || !strings.Contains(out.stderr, "SlowDown") {
		t.Errorf("the log does not tell of the store: %s", out.stderr)
	}
	outage(1 << 40)
	p.job(r, through, "short", "retries: {request: 2, task: 1}")
	gone := r.want(75, "run", "job.yaml", "--run-id", "fails")
	if !strings.Contains(gone.stderr, "the store does not serve") || gone.result["class"] != "retryable" {
		t.Errorf("a store that is gone: %v: %s", gone.result, gone.stderr)
	}
	proxy.Spoil(nil)
	r.want(0, "run", "job.yaml", "--run-id", "fails")
	same(t, p.published("short", "fails"), p.published("long", "waits"))
}

// TestStoreExpiredToken: credentials expire in the middle of a run.
func TestStoreExpiredToken(t *testing.T) {
	r := newRig(t)
	through, proxy := buckettest.Through(t, buckettest.S3(t, "bucket"))
	p := newPlace(t, through, 128)
	p.job(r, through, "run", "retries: {task: 1}")
	expired := false
	proxy.Spoil(func(q *http.Request) *buckettest.Spoil {
		expired = expired || q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/commits/extract/")
		if !expired {
			return nil
		}
		return &buckettest.Spoil{Status: 400, Body: `<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>`}
	})
	out := r.want(75, "run", "job.yaml", "--run-id", "one")
	if !strings.Contains(out.stderr, "renew them and give the same command again") {
		t.Errorf("no remedy: %s", out.stderr)
	}
	proxy.Spoil(nil)
	r.want(0, "run", "job.yaml", "--run-id", "one")
}

// TestStoreMistakes: what a person has to mend is said at once, with exit code 78.
func TestStoreMistakes(t *testing.T) {
	r := newRig(t)
	u := buckettest.S3(t, "bucket")
	through, proxy := buckettest.Through(t, u)
	p := newPlace(t, u, 32)
	absent := *u
	absent.Host = "absent"
	for name, c := range map[string]struct {
		images, rest *url.URL
		answer       *buckettest.Spoil
		want         string
	}{
		"no bucket of images": {&absent, u, nil, "the bucket does not exist"},
		"no bucket of work":   {u, &absent, nil, "the bucket does not exist"},
		"wrong credentials": {through, through, &buckettest.Spoil{Status: 403,
			Body: `<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><StringToSign>AWS4-HMAC-SHA256 of a secret</StringToSign></Error>`}, "refuses the credentials"},
		"clock": {through, through, &buckettest.Spoil{Status: 403,
			Body: `<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>`}, "clock"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Spoil(func(*http.Request) *buckettest.Spoil { return c.answer })
			p.job(r, c.rest, "x", fmt.Sprintf("images: {bucket: %q}", under(c.images, "images")))
			for _, command := range []string{"run", "doctor"} {
				out := r.want(78, command, "job.yaml")
				if !strings.Contains(out.stderr, c.want) || strings.Contains(out.stderr, "StringToSign") {
					t.Errorf("%s: %s", command, out.stderr)
				}
			}
		})
	}
	t.Run("no account", func(t *testing.T) {
		t.Setenv("AZURE_STORAGE_ACCOUNT", "")
		t.Setenv("AZURE_STORAGE_CONNECTION_STRING", "")
		r.job(`work: {bucket: "azblob://container/x"}`)
		if out := r.want(78, "run", "job.yaml"); !strings.Contains(out.stderr, "set AZURE_STORAGE_ACCOUNT") {
			t.Error(out.stderr)
		}
	})
}

// TestStoreSecretsStaySecret: a signed token in the environment, and in URLs that
// the network's errors quote, gets nowhere.
func TestStoreSecretsStaySecret(t *testing.T) {
	r := newRig(t)
	const signature = "c2lnbmF0dXJlJTJCb2YvYS90b2tlbg=="
	for name, value := range map[string]string{
		"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_KEY": "", "AZURE_STORAGE_DOMAIN": "127.0.0.1:1", "AZURE_STORAGE_PROTOCOL": "http",
		"AZURE_STORAGE_SAS_TOKEN": "sv=2024-05-04&ss=b&sig=" + url.QueryEscape(signature),
	} {
		t.Setenv(name, value)
	}
	r.job(`labels: {bucket: "azblob://container/x"}`, "retries: {request: 2, task: 1}")
	leaks := func(where, text string) {
		for _, secret := range []string{signature, url.QueryEscape(signature), signature[:20]} {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows the signature: %s", where, text)
			}
		}
	}
	for _, command := range []string{"run", "doctor", "status"} {
		out := r.sela(command, "job.yaml", "-v")
		if command != "status" && (out.code != 75 || !strings.Contains(out.stderr, "the store does not serve")) {
			t.Errorf("%s: exit %d: %s", command, out.code, out.stderr)
		}
		leaks("stderr of "+command, out.stderr)
		leaks("stdout of "+command, out.stdout)
	}
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(signature[:20])) {
			t.Errorf("%s holds the signature", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Nor is such a URL taken from a job file.
	r.job(`labels: {bucket: "azblob://container/x?sig=abc"}`)
	if out := r.want(78, "run", "job.yaml"); !strings.Contains(out.stderr, "labels.bucket") || strings.Contains(out.stderr, "abc") {
		t.Error(out.stderr)
	}
}
