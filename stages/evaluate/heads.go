package evaluate

import "sela/stages/solve/clusters"

// chanceDraws is how many random equipartitions [HeadScores.Chance] is the mean
// of, chanceSeed their seed.
const (
	chanceDraws = 5
	chanceSeed  = 1
)

// HeadScores are the scores of a head's labels.
type HeadScores struct {
	Scores
	// Chance is what random labels get that give every cluster its equal share.
	Chance Scores
	// Accuracy is the share of rows in the class that their cluster is matched
	// with, one to one and the best way (by the Hungarian method); nil unless there
	// are as many clusters as classes.
	Accuracy *float64
}

// ScoreHead scores the labels of a head, each below k, against classes, each below
// classes, as [Compare] does.
func ScoreHead(labels, truth []int32, k, classes int) (HeadScores, error) {
	var s HeadScores
	var err error
	if s.Scores, err = Compare(labels, truth); err != nil {
		return s, err
	}
	equal := make([]int32, len(labels))
	for i := range equal {
		equal[i] = int32(i % k)
	}
	if s.Chance, err = Chance(equal, truth, chanceSeed, chanceDraws); err != nil {
		return s, err
	}
	if k == classes {
		s.Accuracy = ptr(matched(labels, truth, k))
	}
	return s, nil
}

// matched is the accuracy under the best matching of k clusters with k classes.
func matched(labels, truth []int32, k int) float64 {
	both := make([][]float64, k)
	for i := range both {
		both[i] = make([]float64, k)
	}
	for i, l := range labels {
		both[l][truth[i]]++
	}
	right := 0.0
	for cluster, class := range clusters.Match(both) {
		right += both[cluster][class]
	}
	return right / float64(len(labels))
}
