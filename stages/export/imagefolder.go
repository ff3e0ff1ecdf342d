package export

import (
	"context"
	"encoding/csv"
	"strconv"

	"sela/schemas"
)

// imageFolder writes labels.csv: the path of each image below the images'
// folder, its label, and the label's probability, which is empty where labels
// have none.
type imageFolder struct {
	file *object
	csv  *csv.Writer
}

func newImageFolder(_ *source, out *output) (format, error) {
	file, err := out.create("labels.csv")
	if err != nil {
		return nil, err
	}
	f := &imageFolder{file, csv.NewWriter(file)}
	return f, f.csv.Write([]string{"path", "label", "confidence"})
}

func (f *imageFolder) add(_ context.Context, l *schemas.Label) error {
	for _, err := range []error{loose(l), within(l, l.Key), printable(l, l.Key)} {
		if err != nil {
			return err
		}
	}
	confidence := ""
	if l.Prob != nil {
		confidence = strconv.FormatFloat(float64(*l.Prob), 'g', -1, 32)
	}
	return f.csv.Write([]string{l.Key, strconv.Itoa(int(l.Label)), confidence})
}

func (f *imageFolder) end(ctx context.Context) error {
	if f.csv.Flush(); f.csv.Error() != nil {
		return f.csv.Error()
	}
	return f.file.publish(ctx)
}
