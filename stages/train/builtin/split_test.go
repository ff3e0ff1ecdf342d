package builtin

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestHeldOut(t *testing.T) {
	const n = 50000
	for _, share := range []float64{0, 0.02, 0.3, 0.999} {
		held := 0
		for i := range n {
			key, member := fmt.Sprintf("train/%d.tar", i%7), fmt.Sprintf("%d.jpg", i)
			out := heldOut(key, member, share)
			if out {
				held++
			}
			if out && !heldOut(key, member, min(share*1.5, 0.9999)) {
				t.Fatalf("image %d is held out of share %v and not of a larger one", i, share)
			}
			if sum := sha256.Sum256([]byte("sela train.held_out\x00" + key + "\x00" + member)); out != (float64(binary.BigEndian.Uint64(sum[:])) < share*0x1p64) {
				t.Fatalf("image %d: %v", i, out)
			}
		}
		if sigma := math.Sqrt(n * share * (1 - share)); math.Abs(float64(held)-n*share) > 5*sigma {
			t.Errorf("share %v: %d of %d are held out", share, held, n)
		}
	}
}

func TestSplit(t *testing.T) {
	d := newDataSet(t, true, 40, 30)
	all := d.labelled(t, 3)
	train, held := all.split(0.3)
	both := slices.Sorted(slices.Values(slices.Concat(train, held)))
	for i, x := range both {
		if int(x) != i {
			t.Fatalf("image %d is in neither part or in both", i)
		}
	}
	if len(both) != 100 || len(held) < 10 || !slices.IsSorted(train) || !slices.IsSorted(held) {
		t.Errorf("%d and %d images", len(train), len(held))
	}
	// What other images there are changes nothing.
	d.publish(t, "run-2", 1, d.tables([]int{3}, 3, 4, 50))
	some, err := d.read(t, "run-2")
	if err != nil {
		t.Fatal(err)
	}
	rows := func(l *Labels, indices []uint32) map[int64]bool {
		out := map[int64]bool{}
		for _, i := range indices {
			out[l.Image(int(i)).Row] = true
		}
		return out
	}
	was := rows(all, held)
	_, held = some.split(0.3)
	is := rows(some, held)
	for i := range some.Len() {
		if row := some.Image(i).Row; was[row] != is[row] {
			t.Errorf("row %d changed sides", row)
		}
	}
}
