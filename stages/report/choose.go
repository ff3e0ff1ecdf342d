package report

import "context"

// choose ranks the clusters of each head and deals the budget of images to
// them, as many to each head.
func (r *reporter) choose(context.Context) error {
	all := 0
	for i, h := range r.heads {
		r.rank(h)
		available := make([]int, len(h.order))
		for pos, k := range h.order {
			available[pos] = len(h.clusters[k].best)
		}
		budget := r.Spec.Images / len(r.heads)
		if i < r.Spec.Images%len(r.heads) {
			budget++
		}
		if r.Images == nil {
			budget = 0
		}
		for pos, n := range deal(available, budget) {
			c := &h.clusters[h.order[pos]]
			c.shown = n
			h.tiles = append(h.tiles, c.best[:n]...)
			c.best = nil
		}
		all += len(h.tiles)
	}
	r.side = r.tileSide(all)
	return nil
}

// deal shares a budget out among clusters in their order, of which each can
// take so many: the same to all, and what then is left to those at both ends of
// the order, whose images are looked at first.
func deal(available []int, budget int) []int {
	shares := make([]int, len(available))
	if len(available) == 0 {
		return shares
	}
	give := func(pos, most int) {
		n := min(most-shares[pos], available[pos]-shares[pos], budget)
		if n > 0 {
			shares[pos] += n
			budget -= n
		}
	}
	ends := func(visit func(pos int)) {
		for low, high := 0, len(available)-1; low <= high; low, high = low+1, high-1 {
			visit(low)
			if high > low {
				visit(high)
			}
		}
	}
	same := budget / len(available)
	ends(func(pos int) { give(pos, max(same, 1)) })
	ends(func(pos int) { give(pos, available[pos]) })
	return shares
}

// grade is how large and how well images are drawn.
type grade struct {
	side    int // pixels
	quality int // of JPEG
	bytes   int // that a photograph takes, about
}

// grades keep the images of one report within tilesBytes, as far as that goes.
var grades = []grade{{64, 75, 1200}, {48, 70, 650}, {32, 75, 350}, {32, 50, 240}}

const tilesBytes = 8 << 20

// gradeOf returns how so many images are drawn.
func gradeOf(images int) grade {
	for _, g := range grades {
		if images*g.bytes <= tilesBytes {
			return g
		}
	}
	return grades[len(grades)-1]
}

// tileSide is the side of a tile: no larger than what the network sees, but for
// the smallest grade.
func (r *reporter) tileSide(images int) int {
	side := gradeOf(images).side
	p := r.Run.Job.Preprocess
	for _, size := range [][]int{p.Crop, p.Resize} {
		if len(size) > 0 {
			return min(side, max(size[0], grades[len(grades)-1].side)/16*16)
		}
	}
	return side
}
