package clusters

import "math"

// Match pairs rows with columns so that the sum of their gains is largest: the
// linear assignment problem, by shortest augmenting paths (R. Jonker and A.
// Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", Computing 38, 1987; without its starting heuristics).
// It returns each row's column, or −1 for a row left over: min(rows, columns)
// pairs are made, also of gain 0 or below. The result is a function of the
// gains; of several best it is one of them.
//
// All rows of gain must have the same length and hold finite numbers. It takes
// time of O(s²·l) and memory of O(s·l) besides gain, s and l the smaller and the
// larger of its dimensions.
func Match(gain [][]float64) []int {
	rows := len(gain)
	match := make([]int, rows)
	for i := range match {
		match[i] = -1
	}
	if rows == 0 || len(gain[0]) == 0 {
		return match
	}
	columns := len(gain[0])
	if rows <= columns {
		for j, i := range shortestPaths(rows, columns, func(i, j int) float64 { return -gain[i][j] }) {
			if i >= 0 {
				match[i] = j
			}
		}
		return match
	}
	for i, j := range shortestPaths(columns, rows, func(i, j int) float64 { return -gain[j][i] }) {
		match[i] = j
	}
	return match
}

// shortestPaths gives each of n sources a sink of its own among m ≥ n at the
// least cost, and returns each sink's source or −1.
//
// Sources are added one at a time. With potentials u of the sources and v of the
// sinks, reduced costs c − u − v are at least 0 and those of pairs are 0, so that
// the shortest path to a free sink, found as by Dijkstra, keeps the pairing the
// cheapest of its size.
func shortestPaths(n, m int, cost func(i, j int) float64) []int {
	var (
		u, v   = make([]float64, n), make([]float64, m)
		source = make([]int, m) // of each sink, −1 = free
		before = make([]int, m) // the sink before each on its shortest path, −1 = the new source
		length = make([]float64, m)
		done   = make([]bool, m)
	)
	for j := range source {
		source[j] = -1
	}
	for added := range n {
		for j := range m {
			length[j], done[j] = math.Inf(1), false
		}
		at, last, reached := added, -1, 0.0
		for {
			nearest, next := math.Inf(1), -1
			for j := range m {
				if done[j] {
					continue
				}
				if d := reached + (cost(at, j) - u[at] - v[j]); d < length[j] {
					length[j], before[j] = d, last
				}
				// Among equals a free sink ends the search.
				if length[j] < nearest || length[j] == nearest && source[j] < 0 && source[next] >= 0 {
					nearest, next = length[j], j
				}
			}
			reached, last, done[next] = nearest, next, true
			if source[next] < 0 {
				break
			}
			at = source[next]
		}
		u[added] += reached
		for j := range m {
			if done[j] && j != last {
				u[source[j]] += reached - length[j]
				v[j] -= reached - length[j]
			}
		}
		for last >= 0 { // shift the sources along the path
			prior := before[last]
			if prior < 0 {
				source[last] = added
			} else {
				source[last] = source[prior]
			}
			last = prior
		}
	}
	return source
}
