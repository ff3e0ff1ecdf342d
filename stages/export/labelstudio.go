package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/schemas"
)

// tasksInFile is how many tasks a file holds: some 5 MB, which every Label
// Studio takes at once.
const tasksInFile = 10_000

// labelStudio writes tasks for Label Studio, each with the label as a prediction
// of one choice, and the labelling interface with as many choices as clusters.
type labelStudio struct {
	out     *output
	prefix  string // before keys
	version string // of the model, as Label Studio has it
	config  []byte
	file    *object
	files   int
	tasks   int // in file
}

type lsTask struct {
	Data        lsData         `json:"data"`
	Predictions []lsPrediction `json:"predictions"`
}

type lsData struct {
	Image  string `json:"image"`
	Key    string `json:"key"`
	SHA256 string `json:"sha256"`
}

type lsPrediction struct {
	ModelVersion string     `json:"model_version"`
	Score        *float32   `json:"score,omitempty"`
	Result       []lsResult `json:"result"`
}

type lsResult struct {
	ID       string  `json:"id"`
	Type     string  `json:"type"`
	FromName string  `json:"from_name"`
	ToName   string  `json:"to_name"`
	Value    lsValue `json:"value"`
}

type lsValue struct {
	Choices []string `json:"choices"`
}

func newLabelStudio(s *source, out *output) (format, error) {
	f := &labelStudio{out: out, prefix: s.Images, version: fmt.Sprintf("%s/%s/head%d", s.record.Job.Name, s.Run, s.Head)}
	if f.prefix == "" {
		u, err := url.Parse(s.record.Job.Images.Bucket)
		if err != nil || u.Host == "" {
			return nil, pipeline.BadUsage(errors.New("the images were in a folder of the machine that labelled them: say by --images how Label Studio reaches them, as in --images https://images.example/ or '/data/local-files/?d=images/'"))
		}
		scheme := u.Scheme
		if scheme == "azblob" {
			scheme = "azure-blob" // as Label Studio calls it
		}
		f.prefix = scheme + "://" + u.Host + u.Path
	}
	if !strings.Contains(f.prefix, "?") && !strings.HasSuffix(f.prefix, "/") {
		f.prefix += "/"
	}
	var b bytes.Buffer
	b.WriteString("<View>\n  <Image name=\"image\" value=\"$image\"/>\n  <Choices name=\"cluster\" toName=\"image\" choice=\"single\">\n")
	for k := range s.clusters {
		fmt.Fprintf(&b, "    <Choice value=\"%d\"/>\n", k)
	}
	b.WriteString("  </Choices>\n</View>\n")
	f.config = b.Bytes()
	return f, nil
}

func (f *labelStudio) add(ctx context.Context, l *schemas.Label) error {
	for _, err := range []error{loose(l), within(l, l.Key), printable(l, l.Key)} {
		if err != nil {
			return err
		}
	}
	image, err := f.url(l)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err = e.Encode(lsTask{lsData{image, l.Key, l.SHA256}, []lsPrediction{{f.version, l.Prob,
		[]lsResult{{"cluster", "choices", "cluster", "image", lsValue{[]string{strconv.Itoa(int(l.Label))}}}}}}})
	if err != nil {
		return err
	}
	lead := ",\n"
	if f.file == nil {
		if f.file, err = f.out.create(fmt.Sprintf("tasks-%05d.json", f.files)); err != nil {
			return err
		}
		lead = "[\n"
	}
	if _, err := f.file.Write(append([]byte(lead), bytes.TrimRight(b.Bytes(), "\n")...)); err != nil {
		return err
	}
	if f.tasks++; f.tasks == tasksInFile {
		return f.finish(ctx)
	}
	return nil
}

// url is where Label Studio finds an image. In a parameter or a path of a web
// address the key is escaped; a store's own address, as in s3://bucket/key, takes
// it as it is.
func (f *labelStudio) url(l *schemas.Label) (string, error) {
	switch {
	case strings.Contains(f.prefix, "?"):
		return f.prefix + strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(l.Key)), nil
	case strings.HasPrefix(f.prefix, "http://"), strings.HasPrefix(f.prefix, "https://"), strings.HasPrefix(f.prefix, "/"):
		elements := strings.Split(l.Key, "/")
		for i := range elements {
			elements[i] = url.PathEscape(elements[i])
		}
		return f.prefix + strings.Join(elements, "/"), nil
	case strings.ContainsAny(l.Key, "?#"):
		return "", unfit(l, "Label Studio would read ? and # in %s… as the end of the key: give a web address by --images", f.prefix)
	}
	return f.prefix + l.Key, nil
}

// finish ends a file of tasks.
func (f *labelStudio) finish(ctx context.Context) error {
	if _, err := f.file.Write([]byte("\n]\n")); err != nil {
		return err
	}
	err := f.file.publish(ctx)
	f.file, f.tasks, f.files = nil, 0, f.files+1
	return err
}

func (f *labelStudio) end(ctx context.Context) error {
	if f.file != nil {
		if err := f.finish(ctx); err != nil {
			return err
		}
	}
	config, err := f.out.create("config.xml")
	if err != nil {
		return err
	}
	if _, err := config.Write(f.config); err != nil {
		return err
	}
	return config.publish(ctx)
}
