package augment

import (
	"fmt"
	"image"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// TestPhilox compares with the known answers published with Random123.
func TestPhilox(t *testing.T) {
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 1}, [2]uint32{1<<32 - 1, 1<<32 - 1},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := philox(c.counter, c.key[0], c.key[1]); got != c.want {
			t.Errorf("philox(%x, %x) = %x, want %x", c.counter, c.key, got, c.want)
		}
	}
}

// all switches every step on.
var all = Spec{
	Size: image.Pt(224, 224), Gray: 0.2, Brightness: 0.4, Contrast: 0.5, Saturation: 1.5, Hue: 0.1, Flip: 0.5, Rotate: 15,
}

// The choices of a key are fixed for ever: they must be the same on every
// platform, and change only together with the revision in the canonical text.
func ExampleSpec_Draw() {
	for row := range uint64(3) {
		fmt.Printf("%+v\n", all.Draw(Key{Seed: 42, Epoch: 3, Row: row}, 500, 375))
	}
	// Output:
	// {Crop:(30,9)-(478,367) Gray:true Jitter:[{Op:saturation Factor:2.2343314} {Op:contrast Factor:1.3779831} {Op:hue Factor:-0.046224106} {Op:brightness Factor:1.0512425}] Flip:true Angle:6.6910286}
	// {Crop:(107,42)-(421,354) Gray:false Jitter:[{Op:contrast Factor:0.7881679} {Op:saturation Factor:2.1429653} {Op:brightness Factor:0.9794949} {Op:hue Factor:0.050408967}] Flip:true Angle:4.8857975}
	// {Crop:(134,155)-(382,343) Gray:false Jitter:[{Op:saturation Factor:0.19165546} {Op:contrast Factor:0.6069141} {Op:hue Factor:-0.025619313} {Op:brightness Factor:1.1003429}] Flip:false Angle:0.24858856}
}

// TestIndependent switches steps off one by one: the draws of the others stay.
func TestIndependent(t *testing.T) {
	for row := range uint64(200) {
		k := Key{Seed: 7, Row: row}
		want := all.Draw(k, 400, 300)
		factor := func(c Choices, op Op) float32 {
			for _, a := range c.Jitter {
				if a.Op == op {
					return a.Factor
				}
			}
			return -1
		}
		s := all
		s.Contrast, s.Rotate, s.Size = 0, 0, image.Point{}
		c := s.Draw(k, 400, 300)
		if c.Crop != image.Rect(0, 0, 400, 300) || c.Angle != 0 || factor(c, Contrast) != -1 {
			t.Fatalf("steps that are off drew %+v", c)
		}
		if c.Gray != want.Gray || c.Flip != want.Flip || factor(c, Hue) != factor(want, Hue) || factor(c, Brightness) != factor(want, Brightness) {
			t.Fatalf("%+v, but with all steps %+v", c, want)
		}
		order := slices.DeleteFunc(want.Jitter[:], func(a Adjustment) bool { return a.Op == Contrast })
		if !slices.Equal(order, c.Jitter[:3]) {
			t.Fatalf("order %v, but with all steps %v", c.Jitter, order)
		}
	}
}

// TestKeys changes each part of the key: other choices.
func TestKeys(t *testing.T) {
	seen := map[Choices]Key{}
	for _, k := range []Key{{}, {Seed: 1}, {Seed: 1 << 32}, {Epoch: 1}, {Row: 1}, {Row: 1 << 32}} {
		c := all.Draw(k, 400, 300)
		if other, ok := seen[c]; ok {
			t.Errorf("%+v and %+v draw the same", k, other)
		}
		seen[c] = k
	}
}

// cdf is the share of torchvision's draws that are at most a value.
type cdf struct{ At, Below []float64 }

// distance is the largest difference to the samples' shares: Kolmogorov and
// Smirnov's, at the given values.
func (c cdf) distance(samples []float64) (d float64) {
	slices.Sort(samples)
	for i, at := range c.At {
		n, _ := slices.BinarySearch(samples, math.Nextafter(at, math.Inf(1)))
		d = max(d, math.Abs(float64(n)/float64(len(samples))-c.Below[i]))
	}
	return d
}

// TestDistribution compares what Draw draws with what torchvision draws.
func TestDistribution(t *testing.T) {
	var want struct {
		Crops []struct {
			Width, Height int
			Scale, Ratio  [2]float64
			CDF           map[string]cdf
		}
		Factors map[string]cdf
		Places  map[Op][4]float64
	}
	readJSON(t, "draws.json", &want)
	const n = 200_000
	// Two samples of n from one distribution differ by more than this in
	// 2·e^(−0.005²·n) = 1.3 % of the cases. The draws are fixed, and so is the
	// test's outcome; a uniform instead of a log-uniform ratio differs by 0.07.
	const limit = 0.005
	check := func(name string, c cdf, samples []float64) {
		t.Helper()
		if d := c.distance(samples); d > limit || len(c.At) == 0 {
			t.Errorf("%s: distance %.4f from torchvision's distribution at %d values", name, d, len(c.At))
		}
	}
	for _, c := range want.Crops {
		s := Spec{Size: image.Pt(1, 1), Scale: c.Scale, Ratio: c.Ratio}
		names := []string{"top", "left", "height", "width", "area", "ratio"}
		got := make([][]float64, len(names))
		for row := range uint64(n) {
			r := s.Draw(Key{Seed: 5, Row: row}, c.Width, c.Height).Crop
			w, h := float64(r.Dx()), float64(r.Dy())
			for i, v := range [...]float64{float64(r.Min.Y), float64(r.Min.X), h, w, h * w, w / h} {
				got[i] = append(got[i], v)
			}
		}
		for i, name := range names {
			check(fmt.Sprintf("crop of %d×%d, %s", c.Width, c.Height, name), c.CDF[name], got[i])
		}
	}
	factors := map[string][]float64{}
	places := map[Op]*[4]float64{Brightness: {}, Contrast: {}, Saturation: {}, Hue: {}}
	orders := map[[4]Op]float64{}
	var gray, flip float64
	for row := range uint64(n) {
		c := all.Draw(Key{Seed: 6, Row: row}, 400, 300)
		var order [4]Op
		for i, a := range c.Jitter {
			factors[string(a.Op)] = append(factors[string(a.Op)], float64(a.Factor))
			places[a.Op][i]++
			order[i] = a.Op
		}
		orders[order]++
		factors["angle"] = append(factors["angle"], float64(c.Angle))
		if c.Gray {
			gray++
		}
		if c.Flip {
			flip++
		}
	}
	for name, samples := range factors {
		check(name, want.Factors[name], samples)
	}
	for op, at := range places {
		for i, share := range at {
			if d := math.Abs(share/n - want.Places[op][i]); d > limit {
				t.Errorf("%s stands in place %d in %.4f of the draws, torchvision's in %.4f", op, i, share/n, want.Places[op][i])
			}
		}
	}
	chi := 0.0
	for _, count := range orders {
		chi += (count - n/24.) * (count - n/24.) / (n / 24.)
	}
	if len(orders) != 24 || chi > 49.7 { // 23 degrees of freedom: once in 1,000
		t.Errorf("%d orders of the jitter, χ² = %.1f", len(orders), chi)
	}
	if math.Abs(gray/n-all.Gray) > limit || math.Abs(flip/n-all.Flip) > limit {
		t.Errorf("%.4f gray, %.4f flipped", gray/n, flip/n)
	}
}

// TestFallback forces the central part.
func TestFallback(t *testing.T) {
	s := Spec{Size: image.Pt(8, 8)}
	for _, c := range []struct {
		width, height int
		want          image.Rectangle
	}{
		{1000, 10, image.Rect(493, 0, 506, 10)}, // torchvision: i, j, h, w = 0, 493, 10, 13
		{10, 1000, image.Rect(0, 493, 10, 506)},
	} {
		if got := s.Draw(Key{}, c.width, c.height).Crop; got != c.want {
			t.Errorf("%d×%d: %v, want %v", c.width, c.height, got, c.want)
		}
	}
	s.Ratio = [2]float64{0.5, 2}
	s.Scale = [2]float64{1, 1}
	if got := s.Draw(Key{}, 5, 7).Crop; !got.In(image.Rect(0, 0, 5, 7)) || got.Empty() {
		t.Errorf("%v", got)
	}
}

// TestFunctions compares exp, log and the rotation's cosine and sine with
// package math's on this machine, and decimals with exact arithmetic.
func TestFunctions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		x := rng.Float64()*14 - 7
		if got, want := exp(x), math.Exp(x); math.Abs(got-want) > 4e-16*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
		y := math.Exp(x)
		if got, want := log(y), math.Log(y); math.Abs(got-want) > 4e-16*max(math.Abs(want), 1) {
			t.Fatalf("log(%v) = %v, want %v", y, got, want)
		}
		degrees := float64(float32(rng.Float64()*90 - 45))
		cos, sin := rotation(degrees)
		turned := degrees
		if turned < 0 {
			turned += 360
		}
		radians := turned * (math.Pi / 180)
		if math.Abs(cos-math.Cos(radians)) > 1.1e-15 || math.Abs(sin+math.Sin(radians)) > 1.1e-15 {
			t.Fatalf("rotation(%v) = %v, %v", degrees, cos, sin)
		}
		v := (rng.Float64()*2 - 1) * math.Pow(10, -16*rng.Float64())
		want, err := strconv.ParseFloat(new(big.Float).SetFloat64(v).Text('f', 15), 64)
		if got := decimals(v); err != nil || got != want {
			t.Fatalf("%v to 15 decimals: %v, want %v (%v)", v, got, want, err)
		}
	}
	for _, v := range []float64{0, 1, -1, 0.5, 0x1p-51, 0x1p-50} {
		want, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 15, 64), 64)
		if got := decimals(v); got != want {
			t.Errorf("%v to 15 decimals: %v, want %v", v, got, want)
		}
	}
}

func BenchmarkDraw(b *testing.B) {
	b.ReportAllocs()
	for i := range b.N {
		all.Draw(Key{Row: uint64(i)}, 500, 375)
	}
}
