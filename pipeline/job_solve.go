package pipeline

// Clusters tells whether the method clusters features instead of solving for
// log-probabilities.
func (s *Solve) Clusters() bool { return s.Method == "kmeans" || s.Method == "deepcluster" }

// Transports tells whether labels are those of an optimal transport, which gives
// clusters shares of the images. The other methods serve to compare with.
func (s *Solve) Transports() bool {
	return !s.Clusters() && s.Method != "random" && s.Method != "truth"
}

// check is the part of [Job.check] about the solver.
func (s *Solve) check(bad func(string, string, ...any), oneOf func(string, string, ...string)) {
	oneOf("solve.method", s.Method, "lists", "lbfgs", "sinkhorn", "fixed", "kmeans", "deepcluster", "random", "truth")
	oneOf("solve.balance", s.Balance, "none", "exact")
	oneOf("solve.device", s.Device, "cpu", "cuda")
	iterates := s.Method == "lists" || s.Method == "lbfgs"
	if (s.Method == "fixed") != (s.From != "") {
		bad("solve.from", "names the run whose potentials method fixed uses: give both or neither")
	}
	if (s.Method == "truth") != (s.Truth != "") {
		bad("solve.truth", "says what the classes are that method truth takes for labels: give both or neither")
	}
	if s.From != "" && !runID.MatchString(s.From) {
		bad("solve.from", "is %q, which is not the id of a run", s.From)
	}
	if s.Start != "" && !runID.MatchString(s.Start) {
		bad("solve.start", "is %q, which is not the id of a run", s.Start)
	}
	if s.Start != "" && !iterates {
		bad("solve.start", "is for methods lists and lbfgs; method %s takes no start", s.Method)
	}
	if !(s.Lambda > 0 && finite(s.Lambda)) {
		bad("solve.lambda", "is %v; it must be positive", s.Lambda)
	}
	if !(s.Tolerance >= 0 && finite(s.Tolerance)) {
		bad("solve.tolerance", "is %v; it must be positive, or 0 for the method's own", s.Tolerance)
	}
	if s.MaxIterations < 1 {
		bad("solve.max_iterations", "is %d; it must be at least 1", s.MaxIterations)
	}
	if s.Workers < 0 {
		bad("solve.workers", "is %d; it must be at least 0", s.Workers)
	}
	if s.Memory < 1<<20 {
		bad("solve.memory", "is %s; it must be at least 1MiB", s.Memory)
	}
	if s.Balance == "exact" && (!iterates && s.Method != "sinkhorn" || s.Device != "cpu") {
		bad("solve.balance", "exact needs a solve on the CPU, by lists, lbfgs or sinkhorn")
	}
	if !s.Transports() {
		if s.Device != "cpu" {
			bad("solve.device", "cuda is for methods that solve for log-probabilities, not %s", s.Method)
		}
		if s.Power != 0 || len(s.Marginals) > 0 {
			bad("solve.marginals", "and solve.power are for methods that give clusters shares, not %s", s.Method)
		}
	}
	s.checkShares(bad)
	last := 0.0
	for _, lambda := range s.Anneal {
		if !(lambda > last && lambda < s.Lambda) {
			bad("solve.anneal", "is %v; it must ascend, between 0 and solve.lambda (%v)", s.Anneal, s.Lambda)
			break
		}
		last = lambda
	}
	if len(s.Anneal) > 0 && !iterates {
		bad("solve.anneal", "is for methods lists and lbfgs, not %s", s.Method)
	}
}

func (s *Solve) checkShares(bad func(string, string, ...any)) {
	if !(s.Power >= 0 && finite(s.Power)) {
		bad("solve.power", "is %v; it must be at least 0", s.Power)
	}
	if len(s.Marginals) == 0 {
		return
	}
	if s.Power != 0 {
		bad("solve.power", "and solve.marginals both say what the shares are: give one")
	}
	sum := 0.0
	for k, share := range s.Marginals {
		if !(share > 0 && finite(share)) {
			bad("solve.marginals", "gives cluster %d a share of %v; it must be positive", k, share)
			return
		}
		sum += share
	}
	if sum < 1-1e-9 || sum > 1+1e-9 {
		bad("solve.marginals", "sums to %v; it must sum to 1", sum)
	}
}
