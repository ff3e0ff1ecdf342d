package export

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strconv"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// output takes the objects of an export, each through a scratch file, so that
// none is seen before it is whole.
type output struct {
	to      *bucket.Bucket
	dir     string
	limit   int64 // bytes of scratch
	used    int64
	claim   func(context.Context) error // makes the place this export's own, before its first object
	open    map[*object]bool
	number  int // of scratch files so far
	objects int
	bytes   int64
}

// object is an object being written.
type object struct {
	*output
	key  string
	file *os.File
	w    *bufio.Writer
	sum  hash.Hash
	size int64
}

// create begins the object under a key.
func (o *output) create(key string) (*object, error) {
	o.number++
	f, err := os.OpenFile(filepath.Join(o.dir, "export-"+strconv.Itoa(o.number)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	obj := &object{output: o, key: key, file: f, w: bufio.NewWriterSize(f, 1<<16), sum: sha256.New()}
	if o.open == nil {
		o.open = map[*object]bool{}
	}
	o.open[obj] = true
	return obj, nil
}

// Write implements io.Writer.
func (o *object) Write(p []byte) (int, error) {
	if o.used += int64(len(p)); o.used > o.limit {
		return 0, pipeline.BadConfig(fmt.Errorf("%s needs more than the %s of scratch that local.bytes leaves: raise local.bytes, or give a job file whose local.bytes is larger", o.key, pipeline.Bytes(o.limit)))
	}
	o.size += int64(len(p))
	o.sum.Write(p)
	return o.w.Write(p)
}

// digest is the sha256 of what was written, in hexadecimal.
func (o *object) digest() string { return hex.EncodeToString(o.sum.Sum(nil)) }

// publish makes the object appear. One that is there already is left by an
// export that was cut off, and must be the same.
func (o *object) publish(ctx context.Context) error {
	err := o.w.Flush()
	if err == nil && o.objects == 0 {
		err = o.claim(ctx)
	}
	if err == nil {
		err = o.to.Upload(ctx, o.key, o.file.Name())
	}
	if errors.Is(err, bucket.ErrExists) {
		err = occupied(o.to, o.key)
	}
	if err == nil {
		o.objects++
		o.bytes += o.size
	}
	return errors.Join(err, o.remove())
}

// remove gives the scratch file back.
func (o *object) remove() error {
	delete(o.open, o)
	o.used -= o.size
	return errors.Join(o.file.Close(), os.Remove(o.file.Name()))
}

// discard removes what an export that failed leaves in scratch.
func (o *output) discard() {
	for obj := range o.open {
		_ = obj.remove() // the folder is the caller's to remove
	}
}
