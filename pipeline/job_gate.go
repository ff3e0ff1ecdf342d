package pipeline

// Gate bounds what may be published. It changes no label, so that a run that was
// stopped goes on once a bound was changed.
type Gate struct {
	MaxChurn         float64 `yaml:"max_churn" json:"max_churn" doc:"largest share of a head's images whose label is another than in the run before: [0, 1]; 1 = any"`
	MinNMI           float64 `yaml:"min_nmi" json:"min_nmi" doc:"least agreement of a head's labels with those of the run before, whatever the clusters' numbers: [0, 1]; 0 = any"`
	MaxQuarantine    float64 `yaml:"max_quarantine" json:"max_quarantine" doc:"largest share of the images in quarantine: [0, 1]; 1 = any"`
	MaxMarginalError float64 `yaml:"max_marginal_error" json:"max_marginal_error" doc:"most that the shares of a head's clusters may be off in sum, as solved: [0, 2]; 2 = any"`
}

// Compares tells whether the gate bounds what only a comparison with the run
// before tells.
func (g *Gate) Compares() bool { return g.MaxChurn < 1 || g.MinNMI > 0 }

func defaultGate() Gate { return Gate{MaxChurn: 1, MaxQuarantine: 1, MaxMarginalError: 2} }

// check is the part of [Job.check] about the gate.
func (g *Gate) check(bad func(string, string, ...any)) {
	for _, b := range []struct {
		name        string
		bound, most float64
	}{{"max_churn", g.MaxChurn, 1}, {"min_nmi", g.MinNMI, 1}, {"max_quarantine", g.MaxQuarantine, 1}, {"max_marginal_error", g.MaxMarginalError, 2}} {
		if !(b.bound >= 0 && b.bound <= b.most) {
			bad("gate."+b.name, "is %v; it must be from 0 to %v", b.bound, b.most)
		}
	}
}
