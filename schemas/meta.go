package schemas

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The kinds of tables, as they stand under sela.kind.
const (
	KindImages      = "images"
	KindQuarantine  = "quarantine"
	KindLogprobs    = "logprobs"
	KindFeatures    = "features"
	KindSample      = "sample"
	KindPotentials  = "potentials"
	KindLabels      = "labels"
	KindAssignments = "assignments"
	KindEvaluation  = "evaluation"
)

// Keys of the metadata that this package writes itself.
const (
	keyKind      = "sela.kind"
	keyVersion   = "sela.version"
	keyHead      = "sela.head"
	keyWidth     = "sela.width"
	keyBlockRows = "sela.block_rows"
	keyClusters  = "sela.clusters"
	keyFirstRow  = "sela.first_row"
)

var ownKeys = []string{keyKind, keyVersion, keyHead, keyWidth, keyBlockRows, keyClusters, keyFirstRow}

// pair is one entry of a file's key-value metadata.
type pair struct{ key, value string }

// fileMetadata returns the entries of a file in the order in which they are
// written: the table's own, then the caller's by key.
func fileMetadata(kind string, numbers map[string]int64, callers map[string]string) []pair {
	pairs := []pair{{keyKind, kind}, {keyVersion, strconv.Itoa(Version)}}
	for _, key := range ownKeys {
		if n, ok := numbers[key]; ok {
			pairs = append(pairs, pair{key, strconv.FormatInt(n, 10)})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(callers)) {
		pairs = append(pairs, pair{key, callers[key]})
	}
	return pairs
}

func checkCallersKeys(kv map[string]string) error {
	for _, key := range ownKeys {
		if _, ok := kv[key]; ok {
			return fmt.Errorf("metadata key %q is set by the table itself: choose another", key)
		}
	}
	return nil
}

// callersKV returns the entries that the caller of a writer gave.
func callersKV(kv map[string]string) map[string]string {
	out := maps.Clone(kv)
	for _, key := range ownKeys {
		delete(out, key)
	}
	return out
}

// metaInt reads a number of the file's own metadata, which must be at least least.
func metaInt(kv map[string]string, key string, least int) (int, error) {
	n, err := strconv.ParseInt(kv[key], 10, 64)
	if err != nil || n < int64(least) || n != int64(int(n)) {
		return 0, fmt.Errorf("%w: metadata %s is %q, want a number of at least %d", ErrCorrupt, key, kv[key], least)
	}
	return int(n), nil
}

// Inspect reads a file's footer and nothing else. It returns the kind of table,
// the version of its format, its rows and all of its key-value metadata. It
// knows every version, so that a caller can tell an old file from a damaged one.
func Inspect(path string) (kind string, version int, rows int64, kv map[string]string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, 0, nil, fmt.Errorf("inspect: %w", err)
	}
	defer f.Close()
	ft, err := readFooter(f)
	if err != nil {
		return "", 0, 0, nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	if version, err = metaInt(ft.kv, keyVersion, 1); err != nil {
		return "", 0, 0, nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	return ft.kv[keyKind], version, ft.NumRows, ft.kv, nil
}

// checkText refuses strings that a reader of a UTF-8 column could not decode.
func checkText(texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%q is not UTF-8: quarantine the image under the key in hexadecimal", s)
		}
	}
	return nil
}
