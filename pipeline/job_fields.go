package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// field is one leaf of the job: its YAML path, its value as YAML, its
// documentation, and whether it may change between two attempts at a run.
type field struct {
	path, value, doc string
	free             bool
}

// fields walks the job in the order of its declaration. section is called
// before the first field of every nested struct.
func (j *Job) fields(section func(path, doc string)) []field {
	var out []field
	var walk func(v reflect.Value, prefix string, free bool)
	walk = func(v reflect.Value, prefix string, free bool) {
		for i := range v.NumField() {
			f, t := v.Field(i), v.Type().Field(i)
			path := prefix + t.Tag.Get("yaml")
			free := free || t.Tag.Get("run") == "free"
			if f.Kind() == reflect.Struct {
				section(path, t.Tag.Get("doc"))
				walk(f, path+".", free)
				continue
			}
			out = append(out, field{path, yamlValue(f), t.Tag.Get("doc"), free})
		}
	}
	walk(reflect.ValueOf(j).Elem(), "", false)
	return out
}

// plainString matches what YAML reads as the same string without quotes, but
// for yamlWord; a count in keep.logprobs is among it.
var plainString = regexp.MustCompile(`^([A-Za-z/][A-Za-z0-9_./-]*|[a-z0-9]+://[A-Za-z0-9_./%~-]+|[1-9][0-9]{0,8})$`)

var yamlWord = map[string]bool{"null": true, "true": true, "false": true, "yes": true, "no": true, "on": true, "off": true, "y": true, "n": true}

func yamlValue(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); plainString.MatchString(s) && !yamlWord[strings.ToLower(s)] {
			return s
		}
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice, reflect.Array:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = yamlValue(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// JobTemplate returns a commented YAML file with every field at the value it
// has in j, which [ParseJob] reads back to the same job.
func JobTemplate(j *Job) string {
	var b strings.Builder
	b.WriteString("# A sela job. Paths that are not URLs are relative to this file.\n")
	titles := map[string]string{}
	fields := j.fields(func(path, doc string) { titles[path] = doc })
	last := ""
	for _, f := range fields {
		parent, name, depth := "", f.path, 0
		if cut := strings.LastIndexByte(f.path, '.'); cut >= 0 {
			parent, name, depth = f.path[:cut], f.path[cut+1:], 1+strings.Count(f.path[:cut], ".")
		}
		switch {
		case parent == last || parent == "":
		case depth == 1:
			fmt.Fprintf(&b, "\n%s:  # %s\n", parent, titles[parent])
		default: // a section inside the last one
			fmt.Fprintf(&b, "%-44s # %s\n", strings.Repeat("  ", depth-1)+parent[strings.LastIndexByte(parent, '.')+1:]+":", titles[parent])
		}
		last = parent
		fmt.Fprintf(&b, "%-44s # %s\n", strings.Repeat("  ", depth)+name+": "+f.value, f.doc)
	}
	return b.String()
}

// Digest returns the sha256, in hex, of every field that decides what the
// labels are or where they go: where the images lie, but not how fast they are
// read.
func (j *Job) Digest() string {
	h := sha256.New()
	for _, f := range j.fields(func(string, string) {}) {
		if !f.free {
			fmt.Fprintf(h, "%s: %s\n", f.path, f.value)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Difference lists the fields, other than free ones, in which other differs
// from j, as "field: j's value → other's value".
func (j *Job) Difference(other *Job) []string {
	ignore := func(string, string) {}
	mine, theirs := j.fields(ignore), other.fields(ignore)
	var out []string
	for i, f := range mine {
		if !f.free && f.value != theirs[i].value {
			out = append(out, fmt.Sprintf("%s: %s → %s", f.path, f.value, theirs[i].value))
		}
	}
	return out
}
