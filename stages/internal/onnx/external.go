package onnx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sela/stages/internal/onnx/onnxpb"
)

// external is one tensor's reference to bytes in another file.
type external struct {
	tensor   string
	location string
	offset   int64
	length   int64 // -1: up to the file's end
}

// ExternalFiles returns the files that hold weights of the model, as the
// slash-separated relative paths written in it, sorted and without repetition.
// A path that is absolute or leads out of the model's folder is an error: such
// a model would read whatever its author names.
func (m *Model) ExternalFiles() ([]string, error) {
	refs, err := m.externals()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range refs {
		names = append(names, r.location)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (m *Model) externals() ([]external, error) {
	var refs []external
	var first error
	forEachTensor(m.Proto, func(t *onnxpb.TensorProto) {
		if t.GetDataLocation() != onnxpb.TensorProto_EXTERNAL || first != nil {
			return
		}
		ref, err := parseExternal(t)
		if err != nil {
			first = err
			return
		}
		refs = append(refs, ref)
	})
	return refs, first
}

func parseExternal(t *onnxpb.TensorProto) (external, error) {
	ref := external{tensor: t.GetName(), length: -1}
	for _, kv := range t.ExternalData {
		var err error
		switch kv.GetKey() {
		case "location":
			ref.location = kv.GetValue()
		case "offset":
			ref.offset, err = parseSize(kv.GetValue())
		case "length":
			ref.length, err = parseSize(kv.GetValue())
		}
		if err != nil {
			return ref, fmt.Errorf("tensor %q: external data: %s %q is not a count of bytes", ref.tensor, kv.GetKey(), kv.GetValue())
		}
	}
	name, ok := localPath(ref.location)
	if !ok {
		return ref, fmt.Errorf("tensor %q: external data location %q is not a relative path inside the model's folder", ref.tensor, ref.location)
	}
	ref.location = name
	return ref, nil
}

func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return n, err
}

// localPath accepts a slash-separated path that stays below its start on any
// system, and returns the one name it has after "." elements are dropped.
func localPath(p string) (string, bool) {
	if p == "" || len(p) > 4096 || strings.ContainsAny(p, "\\:\x00\n\r") {
		return "", false
	}
	if slices.Contains(strings.Split(p, "/"), "..") {
		return "", false
	}
	clean := path.Clean(p)
	return clean, clean != "." && filepath.IsLocal(filepath.FromSlash(clean))
}

// checkExternal compares every reference with the files on disk.
func (m *Model) checkExternal() error {
	refs, err := m.externals()
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, r := range refs {
		size, ok := sizes[r.location]
		if !ok {
			info, err := os.Stat(m.externalPath(r.location))
			if err != nil {
				return fmt.Errorf("external data of tensor %q: %w; put the file beside the model", r.tensor, err)
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("external data of tensor %q: %s is not a regular file", r.tensor, r.location)
			}
			size = info.Size()
			sizes[r.location] = size
		}
		end := r.offset
		if r.length > 0 {
			end += min(r.length, math.MaxInt64-end)
		}
		if end > size {
			return fmt.Errorf("external data of tensor %q: it ends at byte %d of %s, which has %d; the file is cut or of another model", r.tensor, end, r.location, size)
		}
	}
	return nil
}

func (m *Model) externalPath(location string) string {
	return filepath.Join(m.Dir, filepath.FromSlash(location))
}

// SaveWithData saves the model to modelPath and copies its external data beside
// it, where it does not already lie there. (Copies, since ONNX Runtime refuses a
// symbolic link out of a model's folder and ONNX's checker a hard link; the
// kernel clones the blocks where the file system can.)
func (m *Model) SaveWithData(modelPath string) error {
	files, err := m.ExternalFiles()
	if err != nil {
		return fmt.Errorf("save model %s: %w", modelPath, err)
	}
	for _, f := range files {
		dst := filepath.Join(filepath.Dir(modelPath), filepath.FromSlash(f))
		if err := copyFile(m.externalPath(f), dst); err != nil {
			return fmt.Errorf("save model %s: external data: %w", modelPath, err)
		}
	}
	return m.Save(modelPath)
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	from, err := in.Stat()
	if err != nil {
		return err
	}
	if to, err := os.Stat(dst); err == nil && os.SameFile(from, to) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return writeFile(dst, in)
}

// FileDigest is the identity of one file of a model.
type FileDigest struct {
	Name   string `json:"name"` // "" for the model itself, else the location as written in it
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // 64 hexadecimal digits
}

// Digest is the identity of a model with all its external data.
type Digest struct {
	// SHA256, 64 hexadecimal digits, is that of the model file where there is no
	// external data. Where there is, it is that of the text "<sha256> <name>\n",
	// a line for each of Files. It does not depend on the model file's name.
	SHA256 string       `json:"sha256"`
	Files  []FileDigest `json:"files"` // the model first, then its data in order of name
}

// Fingerprint reads a model and its external data whole and returns their
// digest. Checks are those of Load.
func Fingerprint(ctx context.Context, modelPath string) (Digest, error) {
	data, err := os.ReadFile(modelPath)
	if err != nil {
		return Digest{}, fmt.Errorf("digest of model: %w", err)
	}
	m, err := parseAt(modelPath, data)
	if err != nil {
		return Digest{}, err
	}
	names, err := m.ExternalFiles()
	if err != nil {
		return Digest{}, fmt.Errorf("digest of model %s: %w", modelPath, err)
	}
	sum := sha256.Sum256(data)
	d := Digest{
		SHA256: hex.EncodeToString(sum[:]),
		Files:  []FileDigest{{Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}},
	}
	if len(names) == 0 {
		return d, nil
	}
	for _, name := range names {
		f, err := digestFile(ctx, m.externalPath(name))
		if err != nil {
			return Digest{}, fmt.Errorf("digest of model %s: external data: %w", modelPath, err)
		}
		f.Name = name
		d.Files = append(d.Files, f)
	}
	h := sha256.New()
	for _, f := range d.Files {
		fmt.Fprintf(h, "%s %s\n", f.SHA256, f.Name)
	}
	d.SHA256 = hex.EncodeToString(h.Sum(nil))
	return d, nil
}

func digestFile(ctx context.Context, path string) (FileDigest, error) {
	f, err := os.Open(path)
	if err != nil {
		return FileDigest{}, err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return FileDigest{}, err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		if err == io.EOF {
			return FileDigest{Bytes: size, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
		}
		if err != nil {
			return FileDigest{}, err
		}
	}
}
