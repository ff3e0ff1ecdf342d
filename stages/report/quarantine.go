package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sela/schemas"
)

// quarantineSample bounds the quarantined images that the page names of each
// class of defect.
const quarantineSample = 8

// defects are the quarantined images of one class.
type defects struct {
	Class  string
	Images int
	Sample []schemas.Quarantine // the first ones
}

// quarantine counts the quarantined images by class, the commonest first, and
// samples each.
func (r *reporter) quarantine(ctx context.Context) ([]*defects, error) {
	byClass := map[string]*defects{}
	for _, c := range r.commits {
		for _, o := range c.Outputs {
			if !strings.HasPrefix(o.Name, "quarantine/") {
				continue
			}
			local, release, err := r.Run.Fetch(ctx, o)
			if err != nil {
				return nil, err
			}
			err = schemas.ReadQuarantine(local, func(q schemas.Quarantine) error {
				d := byClass[q.Class]
				if d == nil {
					d = &defects{Class: strings.Clone(q.Class)}
					byClass[d.Class] = d
				}
				d.Images++
				if len(d.Sample) < quarantineSample {
					d.Sample = append(d.Sample, schemas.Quarantine{Key: strings.Clone(q.Key), Member: strings.Clone(q.Member), KeyHex: q.KeyHex,
						Stage: strings.Clone(q.Stage), Message: shorten(q.Message)})
				}
				return nil
			})
			release()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", o.Name, err)
			}
		}
	}
	all := slices.Collect(maps.Values(byClass))
	slices.SortFunc(all, func(a, b *defects) int {
		return cmp.Or(cmp.Compare(b.Images, a.Images), strings.Compare(a.Class, b.Class))
	})
	return all, nil
}

// shorten cuts a message, which a decoder may have made as long as it likes.
func shorten(message string) string {
	const most = 300
	runes := []rune(message)
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return strings.Clone(message)
}
