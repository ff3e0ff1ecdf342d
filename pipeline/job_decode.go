package pipeline

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxJobBytes bounds a job file, which is a page: the parser's time grows with
// the square of the nesting.
const maxJobBytes = 32 << 10

// decoder sets the fields of a job from YAML. It is stricter than the YAML
// library's own: a value is never rounded, cut or filled up to fit its field,
// anchors and aliases are refused, and every problem is found with its line.
type decoder struct {
	lines map[string]int // of the fields that the file has, by path
	found []problem
}

// decode parses raw and sets what it says in job. The problems of single fields
// are in the decoder; an error is one of the file's form.
func (d *decoder) decode(raw []byte, job *Job) error {
	if len(raw) > maxJobBytes {
		return fmt.Errorf("has %s; a job has at most %s", Bytes(len(raw)), Bytes(maxJobBytes))
	}
	if !utf8.Valid(raw) {
		return errors.New("is not UTF-8 text")
	}
	file, err := parser.ParseBytes(raw, 0)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return fmt.Errorf("line %d: %s", syntax.Token.Position.Line, syntax.Message)
		}
		return fmt.Errorf("is not YAML: %w", err)
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if root != nil {
			return fmt.Errorf("line %d: a second YAML document begins; write one job per file", line(doc.Body))
		}
		root = doc.Body
	}
	d.lines = map[string]int{}
	if root != nil {
		d.set("", root, reflect.ValueOf(job).Elem())
	}
	return nil
}

func (d *decoder) bad(path string, n ast.Node, format string, args ...any) {
	d.found = append(d.found, problem{path, fmt.Sprintf(format, args...), line(n)})
}

// line is where a node begins.
func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// scalar returns the text of a single value, and whether it was written as one
// that can only be a string: the library takes 1e-3 for a string, so that only
// quotes tell.
func scalar(n ast.Node) (text string, isString, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return n.Value, quoted, true
	case *ast.LiteralNode:
		return n.Value.Value, true, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, false, true
	default:
		return "", false, false
	}
}

// set sets v, the field at path, to what n says; an empty value leaves the
// default.
func (d *decoder) set(path string, n ast.Node, v reflect.Value) {
	switch n.(type) {
	case *ast.NullNode:
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.bad(path, n, "uses an anchor, alias or tag, which job files do not have")
		return
	}
	if v.Kind() == reflect.Struct {
		d.section(path, n, v)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *Size:
		d.size(path, n, target)
	case interface{ parse(string) error }:
		text, _, ok := scalar(n)
		if !ok {
			d.bad(path, n, "must be a single value")
		} else if err := target.parse(text); err != nil {
			d.bad(path, n, "is %v", err)
		}
	default:
		if v.Kind() == reflect.Slice || v.Kind() == reflect.Array {
			d.list(path, n, v)
		} else {
			d.single(path, n, v)
		}
	}
}

// section sets the fields of a struct from a mapping.
func (d *decoder) section(path string, n ast.Node, v reflect.Value) {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	default:
		d.bad(path, n, "must be a mapping of fields to values")
		return
	}
	known := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		known[name] = v.Field(i)
		names = append(names, name)
	}
	for _, e := range entries {
		name, _, plain := scalar(e.Key)
		full := strings.TrimPrefix(path+"."+name, ".")
		field, ok := known[name]
		if !plain || !ok {
			d.bad(strings.TrimPrefix(path+"."+e.Key.GetToken().Value, "."), e.Key, "is an unknown field; known here: %s", strings.Join(names, ", "))
			continue
		}
		if _, twice := d.lines[full]; twice {
			d.bad(full, e.Key, "is given twice")
			continue
		}
		d.lines[full] = line(e.Key)
		d.set(full, e.Value, field)
	}
}

// list sets a slice, or an array of exactly as many elements.
func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.bad(path, n, "must be a list: [a, b]")
		return
	}
	if v.Kind() == reflect.Array && len(seq.Values) != v.Len() {
		d.bad(path, n, "must be a list of %d values; it has %d", v.Len(), len(seq.Values))
		return
	}
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	}
	for i, e := range seq.Values {
		d.single(path, e, v.Index(i))
	}
}

// single sets a string, a number or a truth value.
func (d *decoder) single(path string, n ast.Node, v reflect.Value) {
	text, isString, ok := scalar(n)
	if !ok {
		d.bad(path, n, "must be a single value")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Float64:
		f, err := strconv.ParseFloat(strings.Replace(text, ".inf", "inf", 1), 64)
		if n.Type() == ast.NanType || isString || err != nil {
			d.bad(path, n, "is %q; it must be a number", text)
			return
		}
		v.SetFloat(f)
	case reflect.Bool:
		if isString || text != "true" && text != "false" {
			d.bad(path, n, "is %q; it must be true or false", text)
			return
		}
		v.SetBool(text == "true")
	default:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if isString || err != nil {
			d.bad(path, n, "is %q; it must be a whole number", text)
			return
		}
		v.SetInt(i)
	}
}

func (d *decoder) size(path string, n ast.Node, s *Size) {
	values := []ast.Node{n}
	if seq, ok := n.(*ast.SequenceNode); ok {
		values = seq.Values
	}
	sides := make([]int, len(values))
	for i, e := range values {
		text, isString, ok := scalar(e)
		side, err := strconv.Atoi(text)
		if !ok || isString || err != nil || side < 0 || side > maxSide {
			d.bad(path, e, "is not a size in pixels, up to %d (write 224 or [224, 224])", maxSide)
			return
		}
		sides[i] = side
	}
	switch {
	case len(sides) == 1 && sides[0] == 0:
		*s = nil
	case len(sides) == 1 || len(sides) == 2 && sides[0] > 0 && sides[1] > 0:
		*s = sides
	default:
		d.bad(path, n, "is not a size in pixels (write 224 or [224, 224], or 0 for none)")
	}
}
