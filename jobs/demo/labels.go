package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sela/pipeline"
	"sela/schemas"
)

// labels are the labels of one head, one entry per image in row order.
type labels struct {
	head  int
	names []name
	label []int32
	proof certificate
}

// certificate is what the solver proved of a head's potentials.
type certificate struct {
	Clusters   int     `json:"clusters"`
	Passes     int     `json:"passes"`
	MarginalL1 float64 `json:"marginal_l1"`
}

// readPublished reads the label tables of the run that LATEST names in a
// labels bucket's folder, in the order of the heads. Each file is checked
// against the manifest before it is parsed.
func readPublished(folder string) (run string, heads []*labels, err error) {
	raw, err := os.ReadFile(filepath.Join(folder, "LATEST"))
	if err != nil {
		return "", nil, fmt.Errorf("find the published run: %w", err)
	}
	var latest struct {
		Run      string `json:"run"`
		Manifest string `json:"manifest"`
		SHA256   string `json:"sha256"`
	}
	if err := json.Unmarshal(raw, &latest); err != nil {
		return "", nil, pipeline.BadData(fmt.Errorf("read %s: %w", filepath.Join(folder, "LATEST"), err))
	}
	file := filepath.Join(folder, filepath.FromSlash(latest.Manifest))
	if err := verify(file, latest.SHA256); err != nil {
		return "", nil, err
	}
	if raw, err = os.ReadFile(file); err != nil {
		return "", nil, fmt.Errorf("read the manifest: %w", err)
	}
	manifest, err := pipeline.ParseManifest(raw)
	if err != nil {
		return "", nil, fmt.Errorf("read %s: %w", file, err)
	}

	parts := map[int][]pipeline.Output{}
	for _, f := range manifest.Files {
		if head, ok := headOf(f.Name); ok {
			parts[head] = append(parts[head], f)
		}
	}
	for head, files := range parts {
		sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })
		l := &labels{head: head}
		for _, f := range files {
			if err := l.append(filepath.Join(filepath.Dir(file), filepath.FromSlash(f.Path)), f.SHA256); err != nil {
				return "", nil, err
			}
		}
		potentials, ok := manifest.File(fmt.Sprintf("potentials/head-%d.parquet", head))
		if !ok {
			return "", nil, pipeline.BadData(fmt.Errorf("run %s in %s has no potentials of head %d", latest.Run, folder, head))
		}
		if err := l.readProof(filepath.Join(filepath.Dir(file), filepath.FromSlash(potentials.Path)), potentials.SHA256); err != nil {
			return "", nil, err
		}
		heads = append(heads, l)
	}
	sort.Slice(heads, func(i, j int) bool { return heads[i].head < heads[j].head })
	if len(heads) == 0 || len(heads[0].label) == 0 {
		return "", nil, pipeline.BadData(fmt.Errorf("run %s in %s has no labels", latest.Run, folder))
	}
	return latest.Run, heads, nil
}

// headOf returns h for the name of a part "labels/head=<h>/…".
func headOf(object string) (head int, ok bool) {
	rest, ok := strings.CutPrefix(object, "labels/head=")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, "/")
	head, err := strconv.Atoi(number)
	return head, err == nil
}

func (l *labels) append(file, sha string) error {
	if err := verify(file, sha); err != nil {
		return err
	}
	err := schemas.ReadLabels(file, func(row *schemas.Label) error {
		l.names = append(l.names, name{row.Key, row.Member})
		l.label = append(l.label, row.Label)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read labels of head %d: %w", l.head, err)
	}
	return nil
}

func (l *labels) readProof(file, sha string) error {
	if err := verify(file, sha); err != nil {
		return err
	}
	_, meta, err := schemas.ReadPotentials(file)
	if err == nil {
		err = json.Unmarshal([]byte(meta["certificate"]), &l.proof)
	}
	if err != nil {
		return pipeline.BadData(fmt.Errorf("read potentials of head %d: %w", l.head, err))
	}
	return nil
}

// verify refuses a file whose bytes are not those that were published.
func verify(file, sha string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("check a published file: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("check %s: %w", file, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != sha {
		return pipeline.BadData(fmt.Errorf("check %s: sha256 is %s, published was %s: the file is damaged", file, got, sha))
	}
	return nil
}
