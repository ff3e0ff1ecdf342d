package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"sela/pipeline"
)

// specFlags makes a flag of every field of train.builtin, with the field's
// documentation: weight_decay is --weight-decay.
func specFlags(f *pflag.FlagSet, spec *pipeline.Builtin) {
	v := reflect.ValueOf(spec).Elem()
	for i := range v.NumField() {
		t := v.Type().Field(i)
		name, doc := flagName(t), t.Tag.Get("doc")
		switch p := v.Field(i).Addr().Interface().(type) {
		case *int:
			f.IntVar(p, name, *p, doc)
		case *int64:
			f.Int64Var(p, name, *p, doc)
		case *float64:
			f.Float64Var(p, name, *p, doc)
		case *bool:
			f.BoolVar(p, name, *p, doc)
		case *string:
			f.StringVar(p, name, *p, doc)
		case *[]string:
			f.StringSliceVar(p, name, *p, doc)
		case *[]float64:
			f.Float64SliceVar(p, name, *p, doc)
		case *pipeline.Duration:
			f.Var((*durationFlag)(p), name, doc)
		default:
			f.Var(numbersFlag{v.Field(i)}, name, doc)
		}
	}
}

func specFlagNames() []string {
	t := reflect.TypeFor[pipeline.Builtin]()
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = flagName(t.Field(i))
	}
	return names
}

func flagName(f reflect.StructField) string { return strings.ReplaceAll(f.Tag.Get("yaml"), "_", "-") }

// durationFlag reads what a job file does.
type durationFlag pipeline.Duration

func (d *durationFlag) Set(text string) error {
	return (*pipeline.Duration)(d).UnmarshalJSON([]byte(strconv.Quote(text)))
}
func (d *durationFlag) String() string { return pipeline.Duration(*d).String() }
func (d *durationFlag) Type() string   { return "duration" }

// numbersFlag is an array of as many numbers.
type numbersFlag struct{ array reflect.Value }

func (n numbersFlag) Set(text string) error {
	parts := strings.Split(text, ",")
	if len(parts) != n.array.Len() {
		return fmt.Errorf("want %d numbers, as in %s", n.array.Len(), n)
	}
	for i, part := range parts {
		x, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", part)
		}
		n.array.Index(i).SetFloat(x)
	}
	return nil
}

func (n numbersFlag) String() string {
	if !n.array.IsValid() {
		return ""
	}
	var parts []string
	for i := range n.array.Len() {
		parts = append(parts, strconv.FormatFloat(n.array.Index(i).Float(), 'g', 6, 64))
	}
	return strings.Join(parts, ",")
}

func (n numbersFlag) Type() string { return "floats" }
