package evaluate

import (
	"encoding/json"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"testing"
)

// near compares with a tolerance of 1e-9: scikit-learn's AMI sums exponentials
// of differences of log-gammas of about 1e4, which costs it some five digits.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9 }

func TestAgainstScikitLearn(t *testing.T) {
	data, err := os.ReadFile("testdata/scores.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name                  string
		Clusters, Truth       []int32
		NMI, AMI, ARI, Purity float64
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 19 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		s, err := Compare(c.Clusters, c.Truth)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if !near(s.NMI, c.NMI) || !near(s.AMI, c.AMI) || !near(s.ARI, c.ARI) || !near(s.Purity, c.Purity) {
			t.Errorf("%s: got %+v, want NMI %v AMI %v ARI %v purity %v", c.Name, s, c.NMI, c.AMI, c.ARI, c.Purity)
		}
	}
}

func random(n int, clusters, classes int, seed uint64) (a, b []int32) {
	r := rand.New(rand.NewPCG(seed, 1))
	a, b = make([]int32, n), make([]int32, n)
	for i := range a {
		a[i] = int32(r.IntN(clusters))
		b[i] = int32(r.IntN(classes))
		if r.IntN(3) == 0 {
			b[i] = a[i] % int32(classes)
		}
	}
	return a, b
}

func TestProperties(t *testing.T) {
	for seed := range uint64(200) {
		n := 1 + int(seed*7%150)
		a, b := random(n, 1+int(seed%9), 1+int(seed%6), seed)
		s, err := Compare(a, b)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]float64{"NMI": s.NMI, "purity": s.Purity} {
			if !(v >= 0 && v <= 1) {
				t.Errorf("seed %d: %s is %v", seed, name, v)
			}
		}
		if !(s.AMI <= 1+1e-12 && s.ARI <= 1) {
			t.Errorf("seed %d: %+v", seed, s)
		}
		if r, _ := Compare(b, a); !near(r.NMI, s.NMI) || !near(r.AMI, s.AMI) || !near(r.ARI, s.ARI) {
			t.Errorf("seed %d: %+v one way, %+v the other", seed, s, r)
		}
		renamed := make([]int32, n)
		for i := range a {
			renamed[i] = -1_000_003*a[i] + 17
		}
		if r, _ := Compare(renamed, b); r != s {
			t.Errorf("seed %d: %+v, with other names %+v", seed, s, r)
		}
		if r, _ := Compare(a, renamed); r != (Scores{1, 1, 1, 1}) {
			t.Errorf("seed %d: a clustering against itself scores %+v", seed, r)
		}
	}
}

// TestOverlap compares with the definition in exact arithmetic: binomials as
// whole numbers, only the logarithm in floating point.
func TestOverlap(t *testing.T) {
	for _, c := range [][3]int64{{1, 1, 1}, {2, 1, 1}, {10, 3, 4}, {10, 9, 8}, {50, 50, 7}, {1000, 100, 8}, {1000, 990, 995}, {3000, 1500, 1500}} {
		n, a, b := c[0], c[1], c[2]
		all := new(big.Int).Binomial(n, b)
		want := 0.0
		for m := max(1, a+b-n); m <= min(a, b); m++ {
			ways := new(big.Int).Mul(new(big.Int).Binomial(a, m), new(big.Int).Binomial(n-a, b-m))
			p, _ := new(big.Rat).SetFrac(ways, all).Float64()
			want += p * float64(m) / float64(n) * math.Log(float64(n)*float64(m)/(float64(a)*float64(b)))
		}
		if got := overlap(n, a, b); math.Abs(got-want) > 1e-13 {
			t.Errorf("n %d, a %d, b %d: got %v, want %v", n, a, b, got, want)
		}
	}
}

func TestOverlapOfManyRows(t *testing.T) {
	// For n·p far from 0 and n large, E[2n·MI] tends to (K−1)(C−1), the mean of
	// the chi-squared distribution with as many degrees of freedom.
	const n, k = 1 << 40, 4
	got := 2 * n * k * k * overlap(n, n/k, n/k)
	if math.Abs(got-(k-1)*(k-1)) > 0.05 {
		t.Errorf("got %v, want about 9", got)
	}
}

func TestChance(t *testing.T) {
	const n, k, classes = 5000, 100, 10
	a, b := make([]int32, n), make([]int32, n)
	for i := range a {
		a[i], b[i] = int32(i%k), int32(i%k)%classes
	}
	s, err := Compare(a, b)
	if err != nil || s.Purity != 1 || s.NMI < 0.6 {
		t.Fatalf("%+v, %v", s, err)
	}
	c, err := Chance(a, b, 1, 8)
	if err != nil {
		t.Fatal(err)
	}
	table, err := contingency(a, b)
	if err != nil {
		t.Fatal(err)
	}
	expected := table.expectedInformation() / table.meanEntropy()
	if math.Abs(c.NMI-expected) > 0.001 || math.Abs(c.AMI) > 0.002 || math.Abs(c.ARI) > 0.002 {
		t.Errorf("chance is %+v, the expected NMI %v", c, expected)
	}
	if c.Purity < 0.15 || c.Purity > 0.25 { // clusters of 50 rows, 5 of each class on average
		t.Errorf("purity by chance is %v", c.Purity)
	}
	if again, _ := Chance(a, b, 1, 8); again != c {
		t.Errorf("seed 1 gave %+v, then %+v", c, again)
	}
	if other, _ := Chance(a, b, 2, 8); other == c {
		t.Error("the seed does not matter")
	}
	if a[1] != 1 || a[k] != 0 {
		t.Error("Chance changed its argument")
	}
}

func TestErrors(t *testing.T) {
	if _, err := Compare(nil, nil); err == nil {
		t.Error("no rows: no error")
	}
	if _, err := Compare([]int32{1}, []int32{1, 2}); err == nil {
		t.Error("lengths 1 and 2: no error")
	}
	if _, err := Chance([]int32{1}, []int32{1, 2}, 0, 1); err == nil {
		t.Error("chance, lengths 1 and 2: no error")
	}
	if _, err := Chance([]int32{1}, []int32{1}, 0, 0); err == nil {
		t.Error("no draws: no error")
	}
}

func BenchmarkCompare(b *testing.B) {
	clusters, truth := random(1_281_167, 3000, 1000, 1)
	b.SetBytes(int64(len(clusters)))
	for b.Loop() {
		if _, err := Compare(clusters, truth); err != nil {
			b.Fatal(err)
		}
	}
}
