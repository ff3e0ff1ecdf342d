package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Imports run one way: jobs → stages → {sinkhorn, schemas, pipeline}, jobs →
// pipeline, pipeline → schemas; sinkhorn needs the standard library alone, and
// only schemas knows Arrow and Parquet.
func TestImportsRunOneWay(t *testing.T) {
	allowed := map[string][]string{
		"schemas":  {"sela/schemas"},
		"sinkhorn": {"sela/sinkhorn"},
		"pipeline": {"sela/pipeline", "sela/schemas"},
		"stages":   {"sela/stages", "sela/pipeline", "sela/schemas", "sela/sinkhorn"},
		"jobs":     {"sela/jobs", "sela/stages", "sela/pipeline", "sela/schemas"},
	}
	files := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && path != "../.." {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		name, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			within := func(prefix string) bool { return imported == prefix || strings.HasPrefix(imported, prefix+"/") }
			if within("sela") {
				ok := false
				for _, prefix := range allowed[top] {
					ok = ok || within(prefix)
				}
				if !ok {
					t.Errorf("%s imports %s", name, imported)
				}
			}
			if top == "sinkhorn" && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("%s imports %s: sinkhorn needs the standard library alone", name, imported)
			}
			if top != "schemas" && (within("github.com/apache/arrow") || within("github.com/xitongsys")) {
				t.Errorf("%s imports %s: only schemas does", name, imported)
			}
			if !strings.HasPrefix(name, "stages/internal/ort/") && within("github.com/yalue/onnxruntime_go") {
				t.Errorf("%s imports %s: only stages/internal/ort does", name, imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("only %d files were looked at", files)
	}
}
