package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sela/pipeline"
	"sela/pipeline/bucket"
)

// Latest is the content of LATEST: the newest published run.
type Latest struct {
	Run      string    `json:"run"`
	Manifest string    `json:"manifest"` // key in the labels bucket
	SHA256   string    `json:"sha256"`   // of the manifest file
	Created  time.Time `json:"created"`  // of the run: what newest means
	Job      string    `json:"job"`      // several jobs may publish to one bucket
}

// ReadLatest returns the newest published run, or nil where there is none.
func ReadLatest(ctx context.Context, labels *bucket.Bucket) (*Latest, error) {
	l, err := readPointer(ctx, labels, "LATEST")
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, nil
	}
	return l, err
}

// readPointer reads LATEST or a marker.
func readPointer(ctx context.Context, labels *bucket.Bucket, key string) (*Latest, error) {
	raw, err := labels.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", key, labels.URL(), err)
	}
	var l Latest
	if err := json.Unmarshal(raw, &l); err != nil || l.Run == "" {
		return nil, pipeline.BadData(fmt.Errorf("%s of %s is damaged: %q", key, labels.URL(), raw[:min(len(raw), 64)]))
	}
	return &l, nil
}

// Newest returns the newest published run of a job, or nil where there is none.
func Newest(ctx context.Context, labels *bucket.Bucket, job string) (*Latest, error) {
	keys, err := listMarkers(ctx, labels)
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Backward(keys) {
		l, err := readPointer(ctx, labels, key)
		if err != nil {
			return nil, err
		}
		if l.Job == job {
			return l, nil
		}
	}
	return nil, nil
}

const markers = "published/"

// marker is the name under which a run is listed. Names order as runs do: by
// time of creation, to the microsecond, then by id.
func (l *Latest) marker() string {
	return markers + l.Created.UTC().Format("20060102T150405.000000Z") + "-" + l.Run + ".json"
}

// advance records the run among the published ones and lets LATEST point to the
// newest of them. Who has written LATEST looks again at markers and LATEST: of
// two publishers at once the later to look sees both markers, so that an older
// run never has the last word.
func advance(ctx context.Context, labels *bucket.Bucket, mine Latest) error {
	raw, err := json.Marshal(mine)
	if err != nil {
		return err
	}
	if err := create(ctx, labels, mine.marker(), append(raw, '\n')); err != nil {
		return fmt.Errorf("publish run %s: %w", mine.Run, err)
	}
	for {
		newest, err := newestMarker(ctx, labels)
		if err != nil {
			return fmt.Errorf("publish run %s: %w", mine.Run, err)
		}
		current, err := readPointer(ctx, labels, "LATEST")
		if err == nil && current.marker() >= newest {
			return nil
		}
		if err != nil && pipeline.ClassOf(err) != pipeline.Data { // missing or damaged it is written anew
			return fmt.Errorf("publish run %s: %w", mine.Run, err)
		}
		content, err := labels.Get(ctx, newest)
		if err == nil {
			err = labels.Put(ctx, "LATEST", content)
		}
		if err != nil {
			return fmt.Errorf("publish run %s: write LATEST: %w", mine.Run, err)
		}
	}
}

// create stores data under a key that must be free or hold the same already: a
// published object never changes.
func create(ctx context.Context, b *bucket.Bucket, key string, data []byte) error {
	err := b.Create(ctx, key, data)
	if !errors.Is(err, bucket.ErrExists) {
		return err
	}
	there, err := b.Get(ctx, key)
	if err != nil {
		return err
	}
	if !bytes.Equal(there, data) {
		return occupied(b, key)
	}
	return nil
}

func occupied(b *bucket.Bucket, key string) error {
	return pipeline.BadData(fmt.Errorf("%s/%s exists with other contents: another run was published under this id; start a new run, or remove that one", b.URL(), key))
}

func newestMarker(ctx context.Context, labels *bucket.Bucket) (string, error) {
	newest := ""
	err := labels.List(ctx, markers, func(o bucket.Object) error {
		newest = max(newest, o.Key)
		return nil
	})
	return newest, err
}
