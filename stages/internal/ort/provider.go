package ort

import (
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	binding "github.com/yalue/onnxruntime_go"
)

// ErrProvider is in the chain of every error about an execution provider: not
// compiled in, its library or a library below it missing, a wrong option, or a
// node of the model that no provider of the list can run.
var ErrProvider = errors.New("execution provider")

// Names of execution providers.
const (
	CPU      = "cpu"
	CUDA     = "cuda"
	TensorRT = "tensorrt"
)

// Provider asks for one execution provider.
type Provider struct {
	Name     string            // CPU, CUDA or TensorRT
	DeviceID int               // which GPU; 0 for CPU
	Options  map[string]string // ONNX Runtime's own options of the provider, over the defaults set here; none for CPU
}

// Precision is the arithmetic allowed for a float32 model.
type Precision string

// Precisions. On CUDA, Float32 turns TF32 off. TensorRT decides by itself
// whether it uses TF32; only Float16 changes what it may do.
const (
	Float32Precision Precision = "float32" // the default
	TF32Precision    Precision = "tf32"    // CUDA and TensorRT: tensor cores with 10-bit mantissas
	Float16Precision Precision = "float16" // TensorRT only: elsewhere take a float16 model
)

// ProviderStatus says whether a provider can be had.
type ProviderStatus struct {
	Name string
	Err  error // nil if it can; otherwise names what is missing
}

// Providers tries every provider this package knows. It may load large
// libraries (CUDA's), so it is meant for a diagnosis, not for each run.
func (rt *Runtime) Providers() []ProviderStatus {
	all := make([]ProviderStatus, 0, 3)
	for _, name := range []string{CPU, CUDA, TensorRT} {
		all = append(all, ProviderStatus{name, rt.try(Provider{Name: name})})
	}
	return all
}

func (rt *Runtime) try(p Provider) error {
	if err := rt.hold(); err != nil {
		return err
	}
	defer rt.release()
	return keepSignals(func() error {
		o, err := binding.NewSessionOptions()
		if err != nil {
			return err
		}
		defer o.Destroy()
		return rt.appendProvider(o, p, Float32Precision)
	})
}

// configureProviders puts the list into session options. ONNX Runtime always
// adds the CPU provider last by itself, so a list without it forbids its use.
func (rt *Runtime) configureProviders(o *binding.SessionOptions, list []Provider, precision Precision) error {
	if err := checkProviders(list, precision); err != nil {
		return err
	}
	for _, p := range list {
		if err := rt.appendProvider(o, p, precision); err != nil {
			return err
		}
	}
	if len(list) > 0 && !hasProvider(list, CPU) {
		return o.AddSessionConfigEntry("session.disable_cpu_ep_fallback", "1")
	}
	return nil
}

// checkProviders refuses what can be refused without touching a library.
func checkProviders(list []Provider, precision Precision) error {
	for i, p := range list {
		switch {
		case p.Name != CPU && p.Name != CUDA && p.Name != TensorRT:
			return fmt.Errorf("%w %q: unknown; known are %s, %s and %s", ErrProvider, p.Name, CPU, CUDA, TensorRT)
		case hasProvider(list[:i], p.Name):
			return fmt.Errorf("%w %s: listed twice", ErrProvider, p.Name)
		case p.DeviceID < 0:
			return fmt.Errorf("%w %s: device %d: must be 0 or more", ErrProvider, p.Name, p.DeviceID)
		case p.Name == CPU && i != len(list)-1:
			return fmt.Errorf("%w cpu: must stand last, because it takes what the others leave", ErrProvider)
		case p.Name == CPU && (p.DeviceID != 0 || len(p.Options) > 0):
			return fmt.Errorf("%w cpu: takes no device and no options", ErrProvider)
		}
	}
	switch precision {
	case "", Float32Precision:
	case TF32Precision:
		if !hasProvider(list, CUDA) && !hasProvider(list, TensorRT) {
			return fmt.Errorf("%w: precision tf32 needs cuda or tensorrt", ErrProvider)
		}
	case Float16Precision:
		if !hasProvider(list, TensorRT) {
			return fmt.Errorf("%w: precision float16 needs tensorrt; for other providers convert the model to float16", ErrProvider)
		}
	default:
		return fmt.Errorf("%w: precision %q: unknown; known are float32, tf32 and float16", ErrProvider, precision)
	}
	return nil
}

func hasProvider(list []Provider, name string) bool {
	return slices.ContainsFunc(list, func(p Provider) bool { return p.Name == name })
}

// providerOptions returns the settings of a GPU provider: ours, then the
// caller's over them.
func providerOptions(p Provider, precision Precision) map[string]string {
	options := map[string]string{"device_id": strconv.Itoa(p.DeviceID)}
	switch {
	case p.Name == CUDA:
		// The default times every algorithm and may choose another one next
		// time; the heuristic chooses the same one for the same shape.
		options["cudnn_conv_algo_search"] = "HEURISTIC"
		options["use_tf32"] = "0"
		if precision == TF32Precision {
			options["use_tf32"] = "1"
		}
	case precision == Float16Precision:
		options["trt_fp16_enable"] = "1"
	}
	maps.Copy(options, p.Options)
	return options
}

func (rt *Runtime) appendProvider(o *binding.SessionOptions, p Provider, precision Precision) error {
	if p.Name == CPU {
		return nil
	}
	dir := filepath.Dir(rt.lib.Path)
	for _, name := range []string{"libonnxruntime_providers_shared.so", providerLibrary(p.Name)} {
		if !exists(filepath.Join(dir, name)) {
			return fmt.Errorf("%w %s: %s is not in %s, where the runtime library lies: this is a build without %s; "+
				"install ONNX Runtime's GPU build (version 1.%d or later) and name its libonnxruntime.so",
				ErrProvider, p.Name, name, dir, p.Name, minMinor)
		}
	}
	err := appendGPU(o, p.Name, providerOptions(p, precision))
	if err == nil {
		return nil
	}
	library := filepath.Join(dir, providerLibrary(p.Name))
	if missing := missingLibraries(library); len(missing) > 0 {
		return fmt.Errorf("%w %s: %s needs %s, which the dynamic loader cannot find: install them "+
			"or add their folder to LD_LIBRARY_PATH (%w)",
			ErrProvider, p.Name, library, strings.Join(missing, ", "), err)
	}
	return fmt.Errorf("%w %s: device %d: %w", ErrProvider, p.Name, p.DeviceID, err)
}

func providerLibrary(name string) string { return "libonnxruntime_providers_" + name + ".so" }

func appendGPU(o *binding.SessionOptions, name string, options map[string]string) error {
	if name == CUDA {
		cuda, err := binding.NewCUDAProviderOptions()
		if err != nil {
			return err
		}
		defer cuda.Destroy()
		if err := cuda.Update(options); err != nil {
			return err
		}
		return o.AppendExecutionProviderCUDA(cuda)
	}
	trt, err := binding.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	defer trt.Destroy()
	if err := trt.Update(options); err != nil {
		return err
	}
	return o.AppendExecutionProviderTensorRT(trt)
}

// missingLibraries returns the libraries that the ELF library at path is
// linked to and that the dynamic loader cannot load: all of them, where the
// loader's own message names only the first.
func missingLibraries(path string) []string {
	f, err := elf.Open(path)
	if err != nil {
		return []string{fmt.Sprintf("a readable %s (%v)", filepath.Base(path), bare(err))}
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		return nil
	}
	var missing []string
	for _, name := range needed {
		if loadable(name) || loadable(filepath.Join(filepath.Dir(path), name)) {
			continue
		}
		missing = append(missing, name)
	}
	return missing
}
