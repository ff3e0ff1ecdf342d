package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"time"
)

// Manifest is the list of a run's committed outputs, or, in a labels bucket, of
// the published ones.
type Manifest struct {
	Version int       `json:"version"`
	Digest  string    `json:"digest"`
	Run     string    `json:"run"`
	Job     string    `json:"job"`
	Created time.Time `json:"created"` // of the run
	Listing string    `json:"listing"` // digest of the image listing
	// Snapshot is the digest of the listing with the objects' entity tags. It
	// depends on when they were written; the manifest's digest does not cover it.
	Snapshot string   `json:"snapshot,omitempty"`
	Files    []Output `json:"files"`
}

// NewManifest lists files for a run. Their order does not matter; the slice is
// sorted and kept.
func NewManifest(r *Record, listing string, files []Output) *Manifest {
	m := &Manifest{Version: 1, Run: r.Run, Job: r.Job.Name, Created: r.Created, Listing: listing, Files: files}
	sortOutputs(m.Files)
	m.Digest = m.digest()
	return m
}

// digest covers what the files hold and what they are called, but no time, no
// run id and no attempt: two runs that made the same labels have the same
// digest, and what it triggers can be told to be the same.
func (m *Manifest) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "sela manifest %d\nlisting %s\n", m.Version, m.Listing)
	for _, f := range m.Files {
		fmt.Fprintf(h, "%q %d %d %s\n", f.Name, f.Rows, f.Bytes, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Encode writes the manifest as indented JSON.
func (m *Manifest) Encode() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", "  ")
	return append(raw, '\n'), err
}

// ParseManifest reads a manifest and checks its digest.
func ParseManifest(raw []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, BadData(fmt.Errorf("manifest is damaged: %w", err))
	}
	if m.Version != 1 {
		return nil, BadConfig(fmt.Errorf("manifest has version %d; this program reads 1", m.Version))
	}
	if want := m.digest(); m.Digest != want {
		return nil, BadData(fmt.Errorf("manifest of run %s: digest is %.12s, its files give %.12s", m.Run, m.Digest, want))
	}
	return &m, nil
}

// File returns the entry with the logical name.
func (m *Manifest) File(name string) (Output, bool) {
	for _, f := range m.Files {
		if f.Name == name {
			return f, true
		}
	}
	return Output{}, false
}

// Manifest lists everything the run has committed.
func (r *Run) Manifest(ctx context.Context) (*Manifest, error) {
	commits, err := r.AllCommits(ctx)
	if err != nil {
		return nil, err
	}
	var files []Output
	listing := ""
	for _, c := range commits {
		files = append(files, c.Outputs...)
		if c.Stage == "list" {
			listing = Listing(c)
		}
	}
	return NewManifest(&r.Record, listing, files), nil
}

// Listing returns the listing digest that the list stage's commit records.
func Listing(c *Commit) string {
	var result struct {
		Digest string `json:"digest"`
	}
	_ = json.Unmarshal(c.Result, &result) // a commit without a result has no digest
	return result.Digest
}

func sortOutputs(files []Output) {
	sort.Slice(files, func(i, j int) bool {
		if files[i].Name != files[j].Name {
			return files[i].Name < files[j].Name
		}
		return files[i].SHA256 < files[j].SHA256
	})
}
