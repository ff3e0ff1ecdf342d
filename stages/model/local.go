package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/stages/internal/onnx"
)

// Unused is how long a copy of a model may go without use before it makes room
// for another one.
const Unused = 7 * 24 * time.Hour

// Local returns the path of a model's file on this machine. A path is returned
// as it is. Of a bucket URL (s3://bucket/folder/model.onnx?region=…) the object
// and the external data it names, which lie beside it, are downloaded to a
// folder under localDir/models that is named by the URL and the objects' tags:
// while nothing changes in the bucket, nothing is fetched again, and a changed
// model never replaces files that another process may be reading. Copies that
// nobody asked for in a week are removed when a new one arrives. The files of a
// file:// URL are used where they are.
//
// A model or external data that is not there, that is no ONNX model, or whose
// names lead out of its folder, is an error of class Config; a store that fails
// keeps its own class.
func Local(ctx context.Context, pathOrURL, localDir string) (string, error) {
	return local(ctx, "model", pathOrURL, localDir, (*remote).fetch)
}

// LocalFile is [Local] for a file that names no others, such as a checkpoint.
// what says in errors which file it is.
func LocalFile(ctx context.Context, what, pathOrURL, localDir string) (string, error) {
	return local(ctx, what, pathOrURL, localDir, func(r *remote, ctx context.Context) (string, error) {
		object, err := r.bucket.Stat(ctx, r.name)
		if err != nil {
			return "", absent(err, "no such object: check the URL")
		}
		return r.copy(ctx, []bucket.Object{object})
	})
}

func local(ctx context.Context, what, pathOrURL, localDir string, fetch func(*remote, context.Context) (string, error)) (string, error) {
	if !strings.Contains(pathOrURL, "://") {
		return pathOrURL, nil
	}
	folder, name, err := splitURL(pathOrURL)
	if err != nil {
		return "", pipeline.BadConfig(fmt.Errorf("%s: %w", what, err))
	}
	b, err := bucket.Open(ctx, folder, bucket.Options{})
	if err != nil {
		return "", pipeline.BadConfig(fmt.Errorf("%s: %w", what, err))
	}
	if file, ok := b.LocalPath(name); ok {
		return file, b.Close()
	}
	file, err := fetch(&remote{bucket: b, url: pathOrURL, name: name, dir: filepath.Join(localDir, "models")}, ctx)
	err = errors.Join(err, b.Close())
	if err != nil {
		return "", fmt.Errorf("%s %s/%s: %w", what, b.URL(), name, err)
	}
	return file, nil
}

// splitURL cuts a file's URL into the URL of its folder and its name there.
// Errors do not quote the URL, which may hold credentials.
func splitURL(raw string) (folder, name string, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", "", errors.New("its URL cannot be parsed; check its %-escapes")
	}
	dir, name := path.Split(u.Path)
	if !filepath.IsLocal(name) || name == "." || strings.Contains(name, "\\") {
		return "", "", fmt.Errorf("%q in a URL of scheme %s is no file name; write …/file", name, u.Scheme)
	}
	u.Path, u.RawPath = strings.TrimSuffix(dir, "/"), ""
	if u.Scheme == "file" && u.Path == "" {
		u.Path = "/"
	}
	return u.String(), name, nil
}

// remote is a model in a bucket that is its folder.
type remote struct {
	bucket *bucket.Bucket
	url    string
	name   string
	dir    string // of all copies
}

// fetch returns the path of a complete copy. The model's own object is fetched
// first, since it names the others; with external data it lies twice.
func (r *remote) fetch(ctx context.Context) (string, error) {
	object, err := r.bucket.Stat(ctx, r.name)
	if err != nil {
		return "", absent(err, "no such object: check the URL")
	}
	graph, err := r.copy(ctx, []bucket.Object{object})
	if err != nil {
		return "", err
	}
	names, err := externalFiles(graph)
	if err != nil {
		return "", pipeline.BadConfig(err)
	}
	objects := []bucket.Object{object}
	for _, name := range names {
		if name == r.name {
			continue
		}
		data, err := r.bucket.Stat(ctx, name)
		if err != nil {
			return "", absent(err, fmt.Sprintf("its external data %q is missing: put the file beside the model", name))
		}
		objects = append(objects, data)
	}
	if len(objects) == 1 {
		return graph, nil
	}
	return r.copy(ctx, objects)
}

// absent turns a missing object into a configuration error that tells what to do.
func absent(err error, remedy string) error {
	if errors.Is(err, bucket.ErrNotFound) {
		return pipeline.BadConfig(errors.New(remedy))
	}
	return err
}

// externalFiles reads the names of a model's external data. It looks for none
// of them and refuses those that lead out of the model's folder.
func externalFiles(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := onnx.Parse(raw)
	if err != nil {
		return nil, err
	}
	return m.ExternalFiles()
}

// copy returns the path of the first of the objects in a folder that holds all
// of them, which it makes unless it is there.
func (r *remote) copy(ctx context.Context, objects []bucket.Object) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", r.url)
	for _, o := range objects {
		fmt.Fprintf(h, "%q %d %q %d\n", o.Key, o.Size, o.ETag, o.ModTime.UnixNano())
	}
	folder := filepath.Join(r.dir, hex.EncodeToString(h.Sum(nil)))
	local := filepath.Join(folder, r.name)
	if _, err := os.Stat(local); err == nil {
		now := time.Now()
		_ = os.Chtimes(folder, now, now) // without it the copy is merely fetched again one day
		return local, nil
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return "", err
	}
	if err := Prune(r.dir); err != nil {
		return "", err
	}
	arriving, err := os.MkdirTemp(r.dir, "arriving-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(arriving)
	for _, o := range objects {
		if err := r.download(ctx, o, filepath.Join(arriving, filepath.FromSlash(o.Key))); err != nil {
			return "", err
		}
	}
	if err := os.Rename(arriving, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return local, nil // of two processes the first one's copy stays
}

// download writes one object to a new file.
func (r *remote) download(ctx context.Context, o bucket.Object, dst string) (err error) {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	src, err := r.bucket.NewReader(ctx, o.Key, 0, o.Size)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("download %s: %w", o.Key, err)
	}
	// Only tags of two such requests can be compared.
	after, err := r.bucket.Stat(ctx, o.Key)
	if err != nil {
		return err
	}
	if after.ETag != o.ETag || after.Size != o.Size {
		return fmt.Errorf("download %s: %w", o.Key, bucket.ErrChanged)
	}
	return nil
}

// Prune removes the entries of a local folder, copies of models or what is left
// of downloads that broke off, whose time of change is longer ago than [Unused].
// Several processes may do so at once.
func Prune(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process was faster
		}
		if err != nil {
			return err
		}
		if time.Since(info.ModTime()) > Unused {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
