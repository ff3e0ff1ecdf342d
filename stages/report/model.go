package report

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"sela/pipeline"
	"sela/stages/extract"
	"sela/stages/loop"
	"sela/stages/publish"
	"sela/stages/solve"
	"sela/stages/train"
)

//go:embed page
var pageFiles embed.FS

func asset(name string) string {
	raw, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is compiled in
	}
	return string(raw)
}

var (
	pageStyle    = asset("page.css")
	pageScript   = asset("page.js")
	pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"count": func(n any) string { return count(reflect.ValueOf(n).Int()) }, "share": share, "decimal": decimal, "small": small, "optional": optional, "date": date, "seconds": seconds, "percent": percent,
	}).Parse(asset("page.html")))
)

// page is what index.html is made of.
type page struct {
	Style  template.CSS
	Script template.JS
	Policy string // what the browser may load
	Config config // for the script

	Run      *pipeline.Record
	Round    *loop.Round
	Images   int64
	Heads    []headRow
	Figures  []figure
	Sure     string // what confidence is
	Truth    bool
	Previous bool

	Convergence *curves
	Defects     []*defects
	Rejected    int
	History     *curves
	Rounds      []*loop.Round
	Stages      []stageTime
	Made        [][2]string // provenance: name and value
	Job         string      // JSON
	Missing     int
	Shown       int
}

// config is what the page's script knows before it loads any data.
type config struct {
	Heads    []headConfig `json:"heads"`
	PerRow   int          `json:"perRow"`
	PerFile  int          `json:"perFile"`
	Side     int          `json:"side"` // of a tile, in pixels
	Truth    bool         `json:"truth"`
	Previous bool         `json:"previous"`
}

type headConfig struct {
	Data  string   `json:"data"`  // script
	Tiles []string `json:"tiles"` // files of images
	Rows  []int    `json:"rows"`  // of images in each
}

// headRow is a line of the table of heads, with its charts.
type headRow struct {
	Number            int
	Clusters          int
	Way               string
	Passes            int
	ListLength        float64
	MarginalL1        *float64
	Smallest, Largest int64
	Ratio             float64 // of the largest cluster to an equal share
	Mean              float64 // confidence
	loop.Agreement
	Size, Confidence bars
	Warnings         []string
}

// figure is a number at the top of the page.
type figure struct{ Name, Value, Note string }

// stageTime is where the time of a stage went.
type stageTime struct {
	Name    string
	Tasks   int
	Seconds float64
	Percent float64 // of the longest
	Detail  string
}

// model gathers what the page shows.
func (r *reporter) model(ctx context.Context) (*page, error) {
	sum := sha256.Sum256([]byte(pageScript))
	p := &page{
		Style: template.CSS(pageStyle), Script: template.JS(pageScript),
		Policy: "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; script-src 'self' file: 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
		Run:    &r.Run.Record, Round: r.round(), Rounds: r.rounds, Truth: r.classes.known > 0,
		Sure: "the label’s probability under the assignment", Missing: r.summary.Missing, Shown: r.summary.Images + r.summary.Missing,
	}
	if r.solutions[0].Labelling != nil {
		p.Sure = "the network’s own highest probability, for these labels have none"
	}
	p.Config = config{PerRow: tilesPerRow, PerFile: tilesPerFile, Side: r.side, Truth: p.Truth}
	for _, h := range r.heads {
		p.Images = max(p.Images, h.rows)
		p.Previous = p.Previous || h.hasPrevious()
		p.Heads = append(p.Heads, r.headRow(h))
		c := headConfig{Data: headName(h.number), Tiles: []string{}, Rows: []int{}}
		for first := 0; first < len(h.tiles); first += tilesPerFile {
			c.Tiles = append(c.Tiles, tilesName(h.number, first/tilesPerFile))
			c.Rows = append(c.Rows, (min(tilesPerFile, len(h.tiles)-first)+tilesPerRow-1)/tilesPerRow)
		}
		p.Config.Heads = append(p.Config.Heads, c)
	}
	p.Config.Previous = p.Previous
	p.Convergence, p.History = r.convergence(), r.history()
	var err error
	if p.Defects, err = r.quarantine(ctx); err != nil {
		return nil, err
	}
	for _, d := range p.Defects {
		p.Rejected += d.Images
	}
	if p.Stages, err = r.stageTimes(); err != nil {
		return nil, err
	}
	p.Figures = r.figures(p)
	if p.Made, err = r.provenance(); err != nil {
		return nil, err
	}
	p.Job, err = publicJob(r.Run.Job)
	return p, err
}

// headRow describes a head.
func (r *reporter) headRow(h *head) headRow {
	s := h.solution
	row := headRow{Number: h.number, Clusters: len(h.clusters), Passes: s.Passes(), Mean: h.mean, Agreement: h.agreement, Way: r.Run.Job.Solve.Method,
		Smallest: math.MaxInt64, Size: h.sizeBars(r.Run.Job.Solve.Power == 0 && len(r.Run.Job.Solve.Marginals) == 0), Confidence: h.sureBars("confidence")}
	for k := range h.clusters {
		row.Smallest, row.Largest = min(row.Smallest, h.clusters[k].size), max(row.Largest, h.clusters[k].size)
	}
	row.Ratio = float64(row.Largest) * float64(len(h.clusters)) / float64(max(h.rows, 1))
	if s.Labelling == nil {
		c := &s.Certificate
		row.Way, row.ListLength, row.MarginalL1, row.Ratio, row.Warnings = cmp.Or(string(c.Way), row.Way), c.ListLength, &c.MarginalL1, c.MaxCountRatio, c.Warnings
	}
	return row
}

// figures are the numbers at the top.
func (r *reporter) figures(p *page) []figure {
	clusters := make([]int, len(p.Heads))
	passes, worst := 0.0, 0.0
	smallest, largest := int64(math.MaxInt64), int64(0)
	agreements := make([]loop.Head, len(p.Heads))
	for i, h := range p.Heads {
		clusters[i] = h.Clusters
		passes += float64(h.Passes) / float64(len(p.Heads))
		if h.MarginalL1 != nil {
			worst = max(worst, *h.MarginalL1)
		}
		smallest, largest = min(smallest, h.Smallest), max(largest, h.Largest)
		agreements[i].Agreement = h.Agreement
	}
	slices.Sort(clusters)
	each := slices.Compact(clusters)
	of := count(int64(each[0]))
	if len(each) > 1 {
		of += "–" + count(int64(each[len(each)-1]))
	}
	out := []figure{
		{"images labelled", count(p.Images), count(int64(p.Rejected)) + " quarantined"},
		{"heads × clusters", fmt.Sprintf("%d × %s", len(p.Heads), of), "cluster sizes " + count(smallest) + " to " + count(largest)},
	}
	if r.solutions[0].Labelling == nil {
		out = append(out, figure{"error of shares", small(worst), "L1, largest of the heads; " + decimal(passes) + " passes"})
	}
	mean := loop.Mean(agreements)
	if mean.Truth != nil {
		out = append(out, figure{"NMI with the truth", share(mean.Truth.NMI), "by chance " + share(mean.Truth.NMIChance)},
			figure{"purity", share(mean.Truth.Purity), "by chance " + share(mean.Truth.PurityChance)})
	}
	if mean.Churn != nil {
		out = append(out, figure{"churn", share(*mean.Churn), "NMI with the labels before " + share(*mean.Previous)})
	}
	return out
}

// stageTimes tells where the time went, by stage in order.
func (r *reporter) stageTimes() ([]stageTime, error) {
	byName, timing, longest := map[string]*stageTime{}, extract.Timing{}, 0.0
	var order []string
	for _, c := range r.commits {
		s := byName[c.Stage]
		if s == nil {
			s = &stageTime{Name: c.Stage}
			byName[c.Stage] = s
			order = append(order, c.Stage)
		}
		s.Tasks++
		s.Seconds += c.Seconds
		switch c.Stage {
		case extract.Name:
			var result extract.Result
			if err := json.Unmarshal(c.Result, &result); err != nil {
				return nil, pipeline.BadData(fmt.Errorf("commit of extract task %s is damaged: %w", c.Task, err))
			}
			if t := result.Timing; t != nil {
				for _, f := range [][2]*extract.Nanos{{&timing.Wall, &t.Wall}, {&timing.Fetch, &t.Fetch}, {&timing.Slot, &t.Slot},
					{&timing.Decode, &t.Decode}, {&timing.Inference, &t.Inference}, {&timing.Write, &t.Write}} {
					f[0].Add(f[1].Load())
				}
			}
		case train.Name:
			s.Detail = trainDetail(c)
		}
	}
	if s := byName[extract.Name]; s != nil && timing.Wall.Load() > 0 {
		of := func(n *extract.Nanos) float64 { return float64(n.Load()) / float64(timing.Wall.Load()) }
		s.Detail = fmt.Sprintf("waited for the store %s of the time, for the network %s; busy in decoding %s, inference %s, writing %s",
			percent(of(&timing.Fetch)), percent(of(&timing.Slot)), busy(&timing.Decode), busy(&timing.Inference), busy(&timing.Write))
	}
	known := []string{"list", extract.Name, solve.Name, "label", publish.Name, train.Name}
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(slices.Index(known, a), slices.Index(known, b)) })
	for _, s := range byName {
		longest = max(longest, s.Seconds)
	}
	var out []stageTime
	for _, name := range order {
		s := byName[name]
		s.Percent = rounded(100 * s.Seconds / max(longest, 1e-9))
		out = append(out, *s)
	}
	return out, nil
}

func busy(n *extract.Nanos) string { return seconds(time.Duration(n.Load()).Seconds()) }

// trainDetail is what a training says of itself.
func trainDetail(c *pipeline.Commit) string {
	var outcome struct {
		Type   string `json:"type"`
		Report *struct {
			Last *struct {
				Waiting float64 `json:"waiting"`
				Rate    float64 `json:"images_per_second"`
			} `json:"last"`
		} `json:"report"`
	}
	if json.Unmarshal(c.Result, &outcome) != nil {
		return "" // an outcome of a trigger that this program does not know
	}
	if outcome.Report != nil && outcome.Report.Last != nil {
		last := outcome.Report.Last
		return fmt.Sprintf("%s images/s, waited for images %s of the time", decimal(last.Rate), percent(last.Waiting))
	}
	return outcome.Type
}

// provenance is what made the labels.
func (r *reporter) provenance() ([][2]string, error) {
	p, run := r.Run.Provenance, &r.Run.Record
	made := [][2]string{{"run", run.Run}, {"job", run.Job.Name}}
	if run.Loop != "" {
		made = append(made, [2]string{"loop", run.Loop})
	}
	if run.Parent != "" {
		made = append(made, [2]string{"run before", run.Parent})
	}
	made = append(made, [2]string{"begun", run.Created.UTC().Format(time.RFC3339)}, [2]string{"code", p.Code},
		[2]string{"network (sha256)", p.Model}, [2]string{"ONNX Runtime", p.LibraryBuild}, [2]string{"its library (sha256)", p.Library},
		[2]string{"preprocessing", p.Preprocessing}, [2]string{"processor", p.Processor}, [2]string{"listing of the images", r.shards.Listing.Digest},
		[2]string{"job’s digest", run.JobDigest})
	for _, c := range r.commits {
		if c.Stage != publish.Name {
			continue
		}
		var result publish.Result
		if err := json.Unmarshal(c.Result, &result); err != nil {
			return nil, pipeline.BadData(fmt.Errorf("commit of stage publish is damaged: %w", err))
		}
		made = append(made, [2]string{"manifest’s digest", result.Digest}, [2]string{"published at", result.Folder})
	}
	return made, nil
}

// publicJob writes a job without what the trigger is told, which may hold a
// secret, and without users and parameters of URLs.
func publicJob(job *pipeline.Job) (string, error) {
	shown := *job
	shown.Train = pipeline.Train{Type: job.Train.Type, Builtin: job.Train.Builtin}
	strip(reflect.ValueOf(&shown).Elem())
	raw, err := json.MarshalIndent(shown, "", "  ")
	return string(raw), err
}

// strip shortens every URL in the strings of a struct.
func strip(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			strip(f)
		case reflect.String:
			if u, err := url.Parse(f.String()); err == nil && u.Scheme != "" {
				u.User, u.RawQuery, u.Fragment = nil, "", ""
				f.SetString(u.String())
			} else if strings.Contains(f.String(), "://") {
				f.SetString("(a URL that cannot be parsed)")
			}
		}
	}
}
