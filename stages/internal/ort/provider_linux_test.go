package ort_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

func TestProviderLists(t *testing.T) {
	for _, tt := range []struct {
		name      string
		list      []ort.Provider
		precision ort.Precision
		want      string
	}{
		{"unknown", []ort.Provider{{Name: "gpu"}}, "", `"gpu": unknown; known are cpu, cuda and tensorrt`},
		{"twice", []ort.Provider{{Name: ort.CUDA}, {Name: ort.CUDA}}, "", "listed twice"},
		{"cpu first", []ort.Provider{{Name: ort.CPU}, {Name: ort.CUDA}}, "", "cpu: must stand last"},
		{"cpu device", []ort.Provider{{Name: ort.CPU, DeviceID: 1}}, "", "no device"},
		{"cpu options", []ort.Provider{{Name: ort.CPU, Options: map[string]string{"a": "b"}}}, "", "no options"},
		{"device", []ort.Provider{{Name: ort.CUDA, DeviceID: -1}}, "", "device -1"},
		{"tf32 on cpu", nil, ort.TF32Precision, "tf32 needs cuda or tensorrt"},
		{"float16 on cuda", []ort.Provider{{Name: ort.CUDA}}, ort.Float16Precision, "float16 needs tensorrt"},
		{"precision", nil, "bfloat16", `"bfloat16": unknown`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := orttest.Open(t).NewSession("testdata/linear.onnx", ort.Options{Providers: tt.list, Precision: tt.precision})
			if !errors.Is(err, ort.ErrProvider) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// On a build for the CPU, asking for a GPU must fail, never run on the CPU.
func TestMissingProvider(t *testing.T) {
	rt := orttest.Open(t)
	dir := filepath.Dir(rt.Library().Path)
	for _, name := range []string{ort.CUDA, ort.TensorRT} {
		library := "libonnxruntime_providers_" + name + ".so"
		if _, err := os.Stat(filepath.Join(dir, library)); err == nil {
			t.Skipf("skipped: %s is a build with %s", rt.Library().Path, name)
		}
		for _, list := range [][]ort.Provider{{{Name: name}}, {{Name: name}, {Name: ort.CPU}}} {
			_, err := rt.NewSession("testdata/linear.onnx", ort.Options{Providers: list})
			if !errors.Is(err, ort.ErrProvider) {
				t.Fatalf("%v: %v", list, err)
			}
			for _, want := range []string{name, "libonnxruntime_providers_shared.so is not in " + dir, "GPU build"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
		}
	}
}

func TestProviders(t *testing.T) {
	for _, p := range orttest.Open(t).Providers() {
		if p.Name == ort.CPU && p.Err != nil {
			t.Errorf("no cpu: %v", p.Err)
		}
		if p.Err != nil && !errors.Is(p.Err, ort.ErrProvider) {
			t.Errorf("%s: %v", p.Name, p.Err)
		}
	}
}

func TestProviderOptions(t *testing.T) {
	for _, tt := range []struct {
		provider  ort.Provider
		precision ort.Precision
		want      map[string]string
	}{
		{ort.Provider{Name: ort.CUDA, DeviceID: 2}, "", map[string]string{"device_id": "2", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}},
		{ort.Provider{Name: ort.CUDA, Options: map[string]string{"cudnn_conv_algo_search": "DEFAULT", "gpu_mem_limit": "1"}}, ort.TF32Precision,
			map[string]string{"device_id": "0", "use_tf32": "1", "cudnn_conv_algo_search": "DEFAULT", "gpu_mem_limit": "1"}},
		{ort.Provider{Name: ort.TensorRT}, ort.Float16Precision, map[string]string{"device_id": "0", "trt_fp16_enable": "1"}},
		{ort.Provider{Name: ort.TensorRT}, "", map[string]string{"device_id": "0"}},
	} {
		if got := ort.ProviderOptions(tt.provider, tt.precision); !maps.Equal(got, tt.want) {
			t.Errorf("%+v %s: %v, want %v", tt.provider, tt.precision, got, tt.want)
		}
	}
}
