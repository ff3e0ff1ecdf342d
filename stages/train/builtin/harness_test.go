package builtin

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sela/pipeline"
	"sela/stages/internal/onnx"
	"sela/stages/internal/onnx/grad"
	"sela/stages/internal/onnx/onnxpb"
	"sela/stages/internal/onnx/onnxtest"
	"sela/stages/internal/ort"
	"sela/stages/internal/ort/orttest"
)

const (
	testSide  = 8
	testBatch = 16
)

var testClusters = []int{3, 4}

// network is a small classifier with a hidden layer and two heads.
func network(seed uint64) *onnx.Model {
	m, _ := onnxtest.Classifier{Size: testSide, Hidden: 12, Clusters: testClusters, Seed: seed}.Build()
	return m
}

// made is a source of made-up images whose labels a network can learn: those
// that another one gives them.
type made struct {
	images, held int
	rotations    bool
	weights      *rand.Rand
	direction    [][]float32 // by head and cluster, 3 channels
	fail         int         // a step, over all epochs, at which the source fails; 0: never
	empty        int         // a step of each epoch without any image; 0: none
	poison       int         // a step of the first epoch with a pixel that is not a number; 0: none
	poisonHeld   bool        // such a pixel in a held-out image

	mu    sync.Mutex
	calls []int // the steps from which Run was called
}

func newMade() *made {
	m := &made{images: 7*testBatch - 5, held: 2*testBatch - 3, weights: rand.New(rand.NewPCG(7, 7))}
	for _, k := range testClusters {
		for range k {
			v := []float32{}
			for range 3 {
				v = append(v, float32(m.weights.NormFloat64()))
			}
			m.direction = append(m.direction, v)
		}
	}
	return m
}

func (m *made) Steps() int { return (m.images + testBatch - 1) / testBatch }

// fill puts image number of a kind into row i of a slot.
func (m *made) fill(s *Slot, i, number int, weight float32, epoch uint64) {
	random := rand.New(rand.NewPCG(uint64(number), epoch))
	base := rand.New(rand.NewPCG(uint64(number), 1<<40))
	colour := [3]float32{float32(base.NormFloat64()), float32(base.NormFloat64()), float32(base.NormFloat64())}
	pixels := testSide * testSide
	for c := range 3 {
		for p := range pixels {
			s.Images[(i*3+c)*pixels+p] = colour[c] + 0.1*float32(random.NormFloat64())
		}
	}
	first := 0
	for h, k := range testClusters {
		best, at := float32(0), -1
		for j := range k {
			d := m.direction[first+j]
			if x := d[0]*colour[0] + d[1]*colour[1] + d[2]*colour[2]; at < 0 || x > best {
				best, at = x, j
			}
		}
		s.Labels[h*testBatch+i] = int64(at)
		first += k
	}
	if m.rotations && len(s.Labels) > len(testClusters)*testBatch {
		s.Labels[len(testClusters)*testBatch+i] = int64(random.IntN(4))
	}
	s.Weights[i] = weight
}

func (m *made) Run(ctx context.Context, epoch, fromStep int, free <-chan *Slot, ready chan<- *Slot) error {
	m.mu.Lock()
	m.calls = append(m.calls, fromStep)
	m.mu.Unlock()
	for step := fromStep; step < m.Steps(); step++ {
		if m.fail > 0 && epoch*m.Steps()+step == m.fail {
			return errors.New("the power went out")
		}
		s, err := take(ctx, free)
		if err != nil {
			return err
		}
		for i := range testBatch {
			number, weight := step*testBatch+i, float32(1)
			if number >= m.images {
				number, weight = 0, 0
			}
			if m.empty > 0 && step == m.empty {
				weight = 0
			}
			m.fill(s, i, number, weight, uint64(epoch))
		}
		for i := range s.Masks {
			for j := range s.Masks[i] {
				s.Masks[i][j] = float32(2 * ((step + j) % 2))
			}
		}
		if m.poison > 0 && epoch == 0 && step == m.poison {
			s.Images[0] = float32(math.NaN())
		}
		ready <- s
	}
	return nil
}

func (m *made) HeldOut(ctx context.Context, free <-chan *Slot, ready chan<- *Slot) error {
	for first := 0; first < m.held; first += testBatch {
		s, err := take(ctx, free)
		if err != nil {
			return err
		}
		for i := range testBatch {
			weight := float32(1)
			if first+i >= m.held {
				weight = 0
			}
			m.fill(s, i, 100000+first+i, weight, 0)
		}
		if m.poisonHeld {
			s.Images[0] = float32(math.NaN())
		}
		ready <- s
	}
	return nil
}

func take(ctx context.Context, free <-chan *Slot) (*Slot, error) {
	select {
	case s := <-free:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// testSpec is a training of three epochs.
func testSpec() pipeline.Builtin {
	b := pipeline.DefaultJob().Train.Builtin
	b.Epochs, b.Batch, b.Rate, b.WeightDecay = 3, testBatch, 0.05, 1e-4
	return b
}

// newTrainer makes a training of m in dir.
func newTrainer(t *testing.T, m *onnx.Model, s source, dir string) *trainer {
	t.Helper()
	scratch := filepath.Join(t.TempDir(), "scratch")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		t.Fatal(err)
	}
	return &trainer{
		runtime: orttest.Open(t), options: ort.Options{Threads: 1, Arena: true}, model: m, input: "images", heads: []string{"head_0", "head_1"}, clusters: testClusters,
		spec: testSpec(), identity: Identity{Network: "n", Labels: "l", Preprocessing: "p", Spec: "s"},
		open: func([]grad.Mask) (source, error) { return s, nil }, dir: dir, scratch: scratch, observe: func(pipeline.Event) {},
	}
}

// must runs a training to its end.
func must(t *testing.T, tr *trainer) *Report {
	t.Helper()
	r, err := tr.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func contents(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

type gradMask = grad.Mask

func fixedBatch(n int64) *onnxpb.TensorShapeProto_Dimension_DimValue {
	return &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: n}
}

func typeOf(d onnx.DType) *int32 {
	n := int32(d)
	return &n
}

// wider is the test's network with a wider hidden layer.
func wider(*trainer) (*onnx.Model, []byte) {
	return onnxtest.Classifier{Size: testSide, Hidden: 13, Clusters: testClusters, Seed: 1}.Build()
}
