package clusters

import (
	"context"
	"testing"
)

// BenchmarkCIFAR clusters as many rows as CIFAR-10 has, of resnet-s' features,
// into 128 clusters in 20 iterations: what one head takes.
//
//	go test -run '^$' -bench CIFAR ./stages/solve/clusters
func BenchmarkCIFAR(b *testing.B) {
	s := shape{N: 50000, Width: 256, Groups: 300, Spread: 2, Seed: 1}
	e, m := engine(b, 2), source(s, false)
	w, err := e.Whiten(context.Background(), m, m.numbers, 256)
	if err != nil {
		b.Fatal(err)
	}
	for name, o := range map[string]Options{"held": {Memory: plenty}, "read": {}, "whitened": {Memory: plenty, Whitening: w}, "whitened-read": {Whitening: w}} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				f := open(b, e, m, o)
				cluster(b, f, KMeans{Clusters: 128, Iterations: 20, Seed: 1})
			}
		})
	}
	b.Run("whitening", func(b *testing.B) {
		for range b.N {
			if _, err := e.Whiten(context.Background(), m, m.numbers, 256); err != nil {
				b.Fatal(err)
			}
		}
	})
}
