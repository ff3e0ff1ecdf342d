// Package published reads the label sets of a labels bucket: of the images of
// one run the labels that another one gave them.
package published

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
)

// Run is a label set in a labels bucket. It is immutable.
type Run struct {
	Manifest *pipeline.Manifest
	bucket   *bucket.Bucket
	prefix   string
}

// Open reads the manifest of a published run. A run that is not there,
// or not complete, is an error of class [pipeline.Config].
func Open(ctx context.Context, labels *bucket.Bucket, run string) (*Run, error) {
	prefix := "runs/" + run + "/"
	_, err := labels.Stat(ctx, prefix+"_SUCCESS")
	var raw []byte
	if err == nil {
		raw, err = labels.Get(ctx, prefix+"_manifest.json")
	}
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, pipeline.BadConfig(fmt.Errorf("run %s is not published in %s", run, labels.URL()))
	}
	if err != nil {
		return nil, err
	}
	m, err := pipeline.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s/%s_manifest.json: %w", labels.URL(), prefix, err)
	}
	return &Run{Manifest: m, bucket: labels, prefix: prefix}, nil
}

// Files returns the label files of a head, in row order.
func (p *Run) Files(head int) []pipeline.Output {
	prefix := fmt.Sprintf("labels/head=%d/", head)
	var files []pipeline.Output
	for _, f := range p.Manifest.Files {
		if strings.HasPrefix(f.Name, prefix) {
			files = append(files, f)
		}
	}
	return files
}

// Fetcher makes objects available as local files; a [pipeline.Run] is one.
type Fetcher interface {
	FetchFrom(ctx context.Context, from *bucket.Bucket, key string, o pipeline.Output) (local string, release func(), err error)
}

// Heads counts the heads that have label tables.
func (p *Run) Heads() int {
	heads := 0
	for len(p.Files(heads)) > 0 {
		heads++
	}
	return heads
}

// Held is how many bytes of fetched files a walk over a head's labels, or a
// [Run.Read], holds at a time: those of one file, none of a local bucket.
func (p *Run) Held(head int) int64 {
	var held int64
	for _, f := range p.Files(head) {
		held = max(held, f.Bytes)
	}
	if p.bucket.Local() {
		held = 0
	}
	return held
}

// Labels prepares a walk over a head's labels, whose files by fetches. A head
// that the earlier run did not have has none.
func (p *Run) Labels(ctx context.Context, by Fetcher, head int) *Labels {
	files := p.Files(head)
	return newLabels(len(files), func(i int, fn func(*schemas.Label) error) error {
		return p.Read(ctx, by, files[i], func(l *schemas.Label) error {
			err := fn(l)
			if err != nil && !errors.Is(err, errStopped) {
				err = p.wrong(files[i], err)
			}
			return err
		})
	})
}

var errStopped = errors.New("stopped")

// Read calls fn for the rows of one of the [Run.Files], which by fetches. An
// error of fn ends it and is returned as it is.
func (p *Run) Read(ctx context.Context, by Fetcher, f pipeline.Output, fn func(*schemas.Label) error) error {
	local, release, err := by.FetchFrom(ctx, p.bucket, p.prefix+f.Path, f)
	if err == nil {
		defer release()
		var ended error
		err = schemas.ReadLabels(local, func(l *schemas.Label) error {
			ended = fn(l)
			return ended
		})
		if ended != nil {
			return ended
		}
		err = pipeline.BadData(err)
	}
	if err != nil {
		return p.wrong(f, err)
	}
	return nil
}

// wrong says which file an error is about.
func (p *Run) wrong(f pipeline.Output, err error) error {
	return fmt.Errorf("labels %s/%s%s: %w", p.bucket.URL(), p.prefix, f.Path, err)
}

// Labels joins an earlier run's labels to images: a merge, since both
// are ordered by key. Within a key the members of a tar may have moved, so the
// rows of one key, and no more, are held in memory. It belongs to one goroutine.
type Labels struct {
	files int
	read  func(file int, fn func(*schemas.Label) error) error

	// The current key is the first one that is not below the key last asked
	// for; nil is the end.
	current *keyLabels
	next    func() (*keyLabels, error, bool)
	stop    func()
}

func newLabels(files int, read func(int, func(*schemas.Label) error) error) *Labels {
	return &Labels{files: files, read: read, current: &keyLabels{}, stop: func() {}}
}

// Of returns the earlier label of an image. Keys must be asked for in ascending
// order.
func (p *Labels) Of(key, member string) (label int32, ok bool, err error) {
	for p.current != nil && p.current.key < key {
		if p.next == nil {
			p.next, p.stop = iter.Pull2(p.keys(key))
		}
		if p.current, err, _ = p.next(); err != nil {
			return 0, false, err
		}
	}
	if p.current == nil || p.current.key != key {
		return 0, false, nil
	}
	label, ok = p.current.of(member)
	return label, ok, nil
}

// Close ends the walk, which gives the file that is open back.
func (p *Labels) Close() { p.stop() }

// keys yields the labels of one key after the other, in memory that is used
// again for the next, or one error. It begins with the file that may be the
// first to have key.
func (p *Labels) keys(key string) iter.Seq2[*keyLabels, error] {
	return func(yield func(*keyLabels, error) bool) {
		first, err := p.find(key)
		k := &keyLabels{}
		for file := first; file < p.files && err == nil; file++ {
			err = p.read(file, func(l *schemas.Label) error {
				if l.Key < k.key {
					return pipeline.BadData(fmt.Errorf("row %d: key %q after %q: not ordered by key", l.Row, l.Key, k.key))
				}
				if l.Key != k.key {
					if len(k.labels) > 0 && !yield(k, nil) {
						return errStopped
					}
					k.begin(l.Key)
				}
				k.add(l.Member, l.Label)
				return nil
			})
		}
		switch {
		case errors.Is(err, errStopped):
		case err != nil:
			yield(nil, err)
		case len(k.labels) > 0:
			yield(k, nil)
		}
	}
}

// find returns the last file whose first key is below key, or 0: the files
// before it have only smaller keys.
func (p *Labels) find(key string) (int, error) {
	low, high := 0, p.files
	for high-low > 1 {
		middle := (low + high) / 2
		below := false
		err := p.read(middle, func(l *schemas.Label) error {
			below = l.Key < key
			return errStopped
		})
		if err != nil && !errors.Is(err, errStopped) {
			return 0, err
		}
		if below {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// keyLabels are the labels of one key: of a loose image, or of the members of a
// tar in the order of their rows.
type keyLabels struct {
	key     string
	members []string
	labels  []int32
	next    int            // the member to be asked for next, if the tar is as it was
	index   map[string]int // of members; nil until they are asked for in another order
}

func (k *keyLabels) begin(key string) {
	clear(k.members) // what a large tar leaves behind is not to be kept
	*k = keyLabels{key: key, members: k.members[:0], labels: k.labels[:0]}
}

func (k *keyLabels) add(member string, label int32) {
	k.members, k.labels = append(k.members, member), append(k.labels, label)
}

func (k *keyLabels) of(member string) (label int32, ok bool) {
	at := k.next
	if at >= len(k.members) || k.members[at] != member {
		if k.index == nil {
			k.index = make(map[string]int, len(k.members))
			for i, m := range k.members {
				k.index[m] = i
			}
		}
		if at, ok = k.index[member]; !ok {
			return 0, false
		}
	}
	k.next = at + 1
	return k.labels[at], true
}
