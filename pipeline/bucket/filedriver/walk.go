package filedriver

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// windowSize is how many names of one folder are held at a time. A folder with
// more is read once for each window. Tests lower it.
var windowSize = 1 << 17

// walker yields the files of a bucket in key order. Within a folder the names
// are sorted with a slash after those of folders, which is what makes the order
// that of the full keys: "a-b" < "a.b" < "a/" < "a0".
type walker struct {
	bucket  *bucket
	after   string // only keys greater than this one
	shallow bool   // folders are yielded, not entered
	stack   []frame
}

// frame is a folder that the walk is in.
type frame struct {
	key    string // of the folder, "" or with a slash at its end
	prefix string // what the names must begin with
	info   fs.FileInfo
	names  []string // the current window; those of folders end with a slash
	next   int
	more   bool // the folder has names after the window
}

// item is a key with its file, or a folder (a key that ends in a delimiter).
type item struct {
	key  string
	info fs.FileInfo
	dir  bool
}

// newWalker starts a walk over the keys that begin with prefix and are greater
// than after.
func newWalker(ctx context.Context, b *bucket, prefix, after string, shallow bool) (*walker, error) {
	w := &walker{bucket: b, after: after, shallow: shallow}
	dir, name := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir, name = prefix[:i+1], prefix[i+1:]
		if CheckKey(prefix[:i]) != nil {
			return w, nil
		}
		// The folders above are part of the walk, for the links that lead to them.
		for above := ""; above != dir; above = dir[:len(above)+1+strings.IndexByte(dir[len(above):], '/')] {
			info, err := os.Stat(b.path(above))
			if err != nil {
				return w, ignoreGone(err)
			}
			w.stack = append(w.stack, frame{key: above, info: info})
		}
	}
	return w, w.enter(ctx, dir, name)
}

// enter pushes the folder whose key is dir. One that is gone, or is no folder,
// has no files; one that the walk is in already is a link to above itself.
func (w *walker) enter(ctx context.Context, dir, prefix string) error {
	f := frame{key: dir, prefix: prefix}
	var err error
	if f.info, err = os.Stat(w.bucket.path(dir)); err == nil && !f.info.IsDir() {
		return nil
	}
	if err == nil {
		for _, above := range w.stack {
			if os.SameFile(above.info, f.info) {
				return nil
			}
		}
		after, inclusive := w.start(dir)
		err = f.read(ctx, w.bucket.path(dir), after, inclusive)
	}
	if err != nil {
		return ignoreGone(err)
	}
	w.stack = append(w.stack, f)
	return nil
}

// start returns the name that the names in the folder dir must be greater than,
// or not smaller than where the walk continues within it.
func (w *walker) start(dir string) (after string, inclusive bool) {
	rest, ok := strings.CutPrefix(w.after, dir)
	if !ok {
		return "", true // the folder comes after w.after, or it would not have been entered
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 && !w.shallow {
		return rest[:i+1], true
	}
	return rest, false
}

// next returns the next item. At the end it returns io.EOF.
func (w *walker) next(ctx context.Context) (item, error) {
	for len(w.stack) > 0 {
		f := &w.stack[len(w.stack)-1]
		if f.next == len(f.names) {
			if !f.more {
				w.stack = w.stack[:len(w.stack)-1]
				continue
			}
			err := f.read(ctx, w.bucket.path(f.key), f.names[len(f.names)-1], false)
			if err := ignoreGone(err); err != nil {
				return item{}, err
			}
			continue
		}
		key := f.key + f.names[f.next]
		f.next++
		if strings.HasSuffix(key, "/") {
			if !w.shallow {
				if err := w.enter(ctx, key, ""); err != nil {
					return item{}, err
				}
				continue
			}
			switch found, err := w.bucket.hasFile(ctx, key); {
			case err != nil:
				return item{}, err
			case found:
				return item{key: key, dir: true}, nil
			}
			continue
		}
		info, err := os.Stat(w.bucket.path(key))
		if err := ignoreGone(err); err != nil {
			return item{}, err
		}
		if err == nil && info.Mode().IsRegular() {
			return item{key: key, info: info}, nil
		}
	}
	return item{}, io.EOF
}

// read fills the frame with the smallest names of the folder at path that are
// greater than after (or equal, if inclusive), at most windowSize of them.
func (f *frame) read(ctx context.Context, path, after string, inclusive bool) error {
	f.names, f.next, f.more = nil, 0, false
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	var names []string
	var bound string // the greatest name that can still be in the window, if any
	cut := func() {
		slices.Sort(names)
		if len(names) > windowSize {
			names, f.more = names[:windowSize], true
			bound = names[windowSize-1]
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			name := keyName(path, e)
			switch {
			case name == "", name < after, name == after && !inclusive, !strings.HasPrefix(name, f.prefix):
				continue
			case bound != "" && name > bound:
				f.more = true
				continue
			}
			if names = append(names, name); len(names) >= 2*windowSize {
				cut()
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	cut()
	f.names = slices.Clip(names)
	return nil
}

// keyName returns the name of a folder's entry as it stands in keys: with a
// slash if it is a folder or a link to one. It returns "" for what is neither
// that nor a file.
func keyName(dir string, e fs.DirEntry) string {
	name, mode := e.Name(), e.Type()
	if name == Reserved {
		return ""
	}
	if mode&fs.ModeSymlink != 0 {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			if gone(err) {
				return ""
			}
			return name
		}
		mode = info.Mode().Type()
	}
	switch {
	case mode.IsDir():
		return name + "/"
	case mode.IsRegular():
		return name
	}
	return ""
}

// hasFile reports whether there is an object below the folder whose key is dir.
func (b *bucket) hasFile(ctx context.Context, dir string) (bool, error) {
	d, err := os.Open(b.path(dir))
	if err != nil {
		return false, ignoreGone(err)
	}
	entries, err := d.ReadDir(64)
	d.Close()
	if err != nil && err != io.EOF {
		return false, ignoreGone(err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			return true, nil
		}
	}
	if len(entries) == 0 {
		return false, nil
	}
	w, err := newWalker(ctx, b, dir, "", false)
	if err == nil {
		_, err = w.next(ctx)
	}
	if err == io.EOF {
		return false, nil
	}
	return err == nil, err
}

// gone reports whether err says that a file has vanished, or that a link leads
// nowhere: neither is an object.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}
