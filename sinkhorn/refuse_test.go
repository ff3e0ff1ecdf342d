package sinkhorn

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestRefusedRows(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		value  float32
		all    bool
		reason string
	}{
		{nan, false, "cluster 2 is NaN"}, {inf, false, "cluster 2 is +Inf"}, {-inf, true, "every log-probability is -Inf"},
	} {
		m := problem(16, 3000, 5, 1, 0)
		for _, row := range []int{2345, 2999} {
			for k := range 5 {
				if c.all || k == 2 {
					m.x[row*5+k] = c.value
				}
			}
		}
		for _, o := range []Options{{Method: MethodSinkhorn}, {Method: MethodFixed, Potentials: make([]float64, 5)}} {
			_, err := Solve(context.Background(), NewCPU(m, 3), o)
			var bad *RowError
			if !errors.As(err, &bad) || bad.Row != 2345 || !strings.Contains(bad.Reason, c.reason) {
				t.Errorf("%v: error %v, want row 2345, %s", c.value, err, c.reason)
			}
		}
	}
}

func TestRefusedColumn(t *testing.T) {
	m := problem(17, 1100, 5, 1, 0)
	for i := 0; i < len(m.x); i += 5 {
		m.x[i+1], m.x[i+4] = float32(math.Inf(-1)), float32(math.Inf(-1))
	}
	_, err := Solve(context.Background(), NewCPU(m, 1), Options{Method: MethodSinkhorn})
	var bad *ColumnError
	if !errors.As(err, &bad) || len(bad.Clusters) != 2 || bad.Clusters[0] != 1 || bad.Clusters[1] != 4 {
		t.Errorf("error %v, want clusters 1 and 4", err)
	}
	// Given potentials label such rows all the same.
	res := solve(t, m, Options{Method: MethodFixed, Potentials: make([]float64, 5)})
	if res.Masses[1] != 0 || res.Counts[4] != 0 || res.Certificate.EmptyClusters != 2 {
		t.Errorf("%+v", res)
	}
}

func TestValidate(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Method: MethodSinkhorn, Lambda: -1}, "lambda"}, {Options{Method: MethodSinkhorn, Lambda: nan}, "lambda"}, {Options{Method: MethodSinkhorn, Lambda: math.Inf(1)}, "lambda"},
		{Options{Method: MethodSinkhorn, Tol: -1}, "tol"}, {Options{Method: MethodSinkhorn, Tol: nan}, "tol"}, {Options{Method: MethodSinkhorn, MaxIterations: -1}, "max iterations"},
		{Options{Method: MethodSinkhorn, Marginals: []float64{0.5, 0.6}}, "sum to 1.1"}, {Options{Method: MethodSinkhorn, Marginals: []float64{1, 0}}, "cluster 1"},
		{Options{Method: MethodSinkhorn, Marginals: []float64{}}, "sum to 0"}, {Options{Method: MethodSinkhorn, Marginals: []float64{nan, 1}}, "cluster 0"},
		{Options{Method: "simplex"}, `"simplex"`}, {Options{Method: MethodSinkhorn, Potentials: []float64{1}}, "takes no potentials"},
		{Options{Method: MethodFixed}, "needs potentials"}, {Options{Method: MethodFixed, Potentials: []float64{0, nan}}, "cluster 1"},
		{Options{Method: MethodFixed, Potentials: []float64{0, 0}, Marginals: []float64{1}}, "1 marginals for 2"},
	} {
		if err := c.o.Validate(); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.o, err, c.want)
		}
	}
	if err := (Options{Method: MethodSinkhorn}).Validate(); err != nil {
		t.Error(err)
	}
	m := problem(25, 50, 3, 1, 0)
	for _, o := range []Options{{Method: MethodSinkhorn, Marginals: []float64{0.5, 0.5}}, {Method: MethodFixed, Potentials: []float64{1, 2}}} {
		if _, err := Solve(context.Background(), NewCPU(m, 1), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v over 3 clusters: %v", o, err)
		}
	}
}
