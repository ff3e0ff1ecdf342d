package list

import (
	"context"
	"errors"

	"sela/pipeline"
	"sela/pipeline/bucket"
	"sela/schemas"
	"sela/stages/internal/imageio"
)

// options translates the job's words.
func options(spec pipeline.Images) Options {
	return Options{Prefix: spec.Prefix, Glob: spec.Glob, Only: spec.Only, Limit: spec.Limit, Sample: spec.Sample, Extensions: imageio.Extensions}
}

// Count lists the images of a job without writing anything.
func Count(ctx context.Context, images *bucket.Bucket, spec pipeline.Images) (Summary, error) {
	return Scan(ctx, images, options(spec), func(schemas.Image) error { return nil }, func(schemas.Quarantine) error { return nil })
}

// First returns the first n images of a job, or all where there are fewer.
func First(ctx context.Context, images *bucket.Bucket, spec pipeline.Images, n int) ([]schemas.Image, error) {
	enough := errors.New("enough")
	var first []schemas.Image
	_, err := Scan(ctx, images, options(spec), func(img schemas.Image) error {
		first = append(first, img)
		if len(first) == n {
			return enough
		}
		return nil
	}, func(schemas.Quarantine) error { return nil })
	if errors.Is(err, enough) {
		err = nil
	}
	return first, err
}
