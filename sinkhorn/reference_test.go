package sinkhorn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"testing"
)

// golden is a case of testdata/reference.json, written by reference.py.
type golden struct {
	Name       string
	Seed       uint64
	Rows       int
	Clusters   int
	Lambda     float64
	Tol        float64
	Scale      float64
	Bias       float64
	SHA256     string
	Iterations int
	Err        float64
	LogR       string `json:"log_r"`
	Labels     string
}

// uniform is splitmix64 of seed and index, as a multiple of 2^-53 in [0, 1).
func uniform(seed, index uint64) float64 {
	z := seed + index*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	z ^= z >> 31
	return float64(z>>11) * 0x1p-53
}

// bell is a centred sum of four uniforms of variance 1.
func bell(seed, index uint64) float64 {
	s := uniform(seed, 4*index)
	for j := uint64(1); j < 4; j++ {
		s += uniform(seed, 4*index+j)
	}
	return float64((s - 2) * 1.7320508075688772)
}

// generate makes the matrix that reference.py made.
func (g *golden) generate() *memory {
	m := &memory{x: make([]float32, g.Rows*g.Clusters), clusters: g.Clusters}
	bias := make([]float64, g.Clusters)
	for k := range bias {
		bias[k] = float64(g.Bias * bell(g.Seed+1, uint64(k)))
	}
	logits := make([]float64, g.Clusters)
	for i := range g.Rows {
		top := math.Inf(-1)
		for k := range logits {
			logits[k] = float64(g.Scale*bell(g.Seed, uint64(i*g.Clusters+k))) + bias[k]
			top = math.Max(top, logits[k])
		}
		sum := 0.0
		for _, l := range logits {
			sum += math.Exp(l - top)
		}
		normaliser := math.Floor((top+math.Log(sum))*1024+0.5) / 1024
		for k, l := range logits {
			m.x[i*g.Clusters+k] = float32(l - normaliser)
		}
	}
	return m
}

func goldens(t *testing.T) (cases []golden) {
	data, err := os.ReadFile("testdata/reference.json")
	if err == nil {
		err = json.Unmarshal(data, &cases)
	}
	if err != nil || len(cases) < 10 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	return cases
}

func TestReference(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			if raceEnabled && g.Rows*g.Clusters*g.Iterations > 10e6 {
				t.Skip("too slow under the race detector; runs without it")
			}
			m := g.generate()
			h := sha256.New()
			if err := binary.Write(h, binary.LittleEndian, m.x); err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(h.Sum(nil)); got != g.SHA256 {
				t.Fatalf("generated another matrix than reference.py: %s, want %s", got, g.SHA256)
			}
			res, err := Solve(context.Background(), NewCPU(m, 2), Options{Method: MethodSinkhorn, Lambda: g.Lambda, Tol: g.Tol})
			if err != nil || res.Status != Converged {
				t.Fatal(res, err)
			}
			if res.Iterations != g.Iterations || res.Passes != g.Iterations+1 {
				t.Errorf("%d iterations, %d passes, want %d iterations", res.Iterations, res.Passes, g.Iterations)
			}
			// Cancellation in lse − lse' leaves about 1e-14·N of noise.
			if got := *res.Certificate.Change; math.Abs(got-g.Err) > 1e-6*g.Err+1e-13*float64(g.Rows) {
				t.Errorf("err %v, want %v", got, g.Err)
			}
			worst := 0.0
			for k, bits := range words(t, g.LogR, 8) {
				worst = math.Max(worst, math.Abs(res.V[k]-math.Float64frombits(bits)))
			}
			t.Logf("%d iterations, |Δ log r| %.2g", res.Iterations, worst)
			if !(worst <= 1e-10) {
				t.Errorf("|Δ log r| = %g, want at most 1e-10", worst)
			}
			got, want := labels(m, g.Lambda, res.V), words(t, g.Labels, 2)
			counts := make([]int64, g.Clusters)
			for i := range want {
				counts[got[i]]++
				if uint64(got[i]) != want[i] {
					t.Fatalf("row %d: label %d, want %d", i, got[i], want[i])
				}
			}
			for k := range counts {
				if counts[k] != res.Counts[k] {
					t.Fatalf("cluster %d: the pass counted %d rows, the Assigner gave it %d", k, res.Counts[k], counts[k])
				}
			}
		})
	}
}

// TestSameBitsOnAnyProcessor pins every bit of a solution: fused operations, or
// an exp that differs by architecture, would show here.
func TestSameBitsOnAnyProcessor(t *testing.T) {
	g := goldens(t)[3]
	res := solve(t, g.generate(), Options{Method: MethodSinkhorn, Lambda: g.Lambda, Tol: g.Tol})
	h := sha256.New()
	c := res.Certificate
	for _, numbers := range [][]float64{
		res.V, res.Masses, {*c.Change, c.Objective, c.MarginalL1, *c.Gap, c.HardGap, c.UseEntropy, *c.MinMargin},
	} {
		if err := binary.Write(h, binary.LittleEndian, numbers); err != nil {
			t.Fatal(err)
		}
	}
	const want = "7dd2cddbeaa5f42b9221b720db3c8317c0445a6b06b1b49459a5edc173cf4c4a"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("%s: bits %s, want %s", g.Name, got, want)
	}
}

// words decodes base64 of little-endian words of the given size in bytes.
func words(t *testing.T, text string, size int) (w []uint64) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var word [8]byte
	for ; len(data) >= size; data = data[size:] {
		copy(word[:], data[:size])
		w = append(w, binary.LittleEndian.Uint64(word[:]))
	}
	return w
}
