package ort

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Determinism says under which changes of a run's circumstances the outputs of
// a model kept every bit, as measured on one batch. If all hold, the tables
// made from them do not depend on batching, on workers or on load.
type Determinism struct {
	Repeat      bool `json:"repeat"`      // the same batch again
	Concurrency bool `json:"concurrency"` // the same batch in two runs at once
	Position    bool `json:"position"`    // the rows of the batch in other places
	Company     bool `json:"company"`     // a row among other rows than before
	BatchSize   bool `json:"batch_size"`  // a row in a batch of its own; true where the model fixes the batch

	// MaxDifference is the largest absolute difference of two outputs that
	// should have been equal; +Inf if one of them was not finite.
	MaxDifference float64 `json:"max_difference"`
}

// Bitwise reports whether every circumstance kept every bit.
func (d Determinism) Bitwise() bool {
	return d.Repeat && d.Concurrency && d.Position && d.Company && d.BatchSize
}

// CheckDeterminism measures [Determinism] on the batch that the caller has put
// into slot's inputs, whose first dimension is the batch, as is that of every
// output. It makes about a dozen runs and leaves slot with the caller's inputs
// and their outputs. A batch of different, real images tells most.
func (s *Session) CheckDeterminism(ctx context.Context, slot *Slot) (Determinism, error) {
	rows := int64(0)
	for _, t := range slices.Concat(slot.Inputs, slot.Outputs) {
		if rows == 0 {
			rows = t.Dims[0]
		}
		if t.Dims[0] != rows {
			return Determinism{}, s.refuse("%s has %d rows in a batch of %d: rows cannot be compared", t.Name, t.Dims[0], rows)
		}
	}
	other, err := s.NewSlot(ctx, shapesOf(slot.Inputs)...)
	if err != nil {
		return Determinism{}, err
	}
	defer other.Close()
	if err := s.Run(ctx, slot); err != nil {
		return Determinism{}, err
	}
	d := Determinism{Repeat: true, Concurrency: true, Position: true, Company: true, BatchSize: true}
	p := &probe{session: s, reference: slot, rows: int(rows), result: &d}
	for _, step := range []func(context.Context, *Slot) error{p.repeat, p.concurrency, p.position, p.company, p.batchSize} {
		if err := step(ctx, other); err != nil {
			return Determinism{}, fmt.Errorf("check determinism: %w", err)
		}
	}
	return d, nil
}

// probe compares runs with those of the reference slot.
type probe struct {
	session   *Session
	reference *Slot
	rows      int
	result    *Determinism
}

func (p *probe) repeat(ctx context.Context, other *Slot) error {
	for range 3 {
		p.fill(other, func(row int) int { return row })
		if err := p.session.Run(ctx, other); err != nil {
			return err
		}
		p.compare(other, &p.result.Repeat, func(row int) int { return row })
	}
	return nil
}

func (p *probe) concurrency(ctx context.Context, other *Slot) error {
	third, err := p.session.NewSlot(ctx, shapesOf(p.reference.Inputs)...)
	if err != nil {
		return err
	}
	defer third.Close()
	pair := [2]*Slot{other, third}
	var errs [2]error
	var both sync.WaitGroup
	for i, slot := range pair {
		p.fill(slot, func(row int) int { return row })
		both.Go(func() { errs[i] = p.session.Run(ctx, slot) })
	}
	both.Wait()
	for i, slot := range pair {
		if errs[i] != nil {
			return errs[i]
		}
		p.compare(slot, &p.result.Concurrency, func(row int) int { return row })
	}
	return nil
}

func (p *probe) position(ctx context.Context, other *Slot) error {
	for _, shift := range []int{1, p.rows / 2} {
		moved := func(row int) int { return (row + shift) % p.rows }
		p.fill(other, moved)
		if err := p.session.Run(ctx, other); err != nil {
			return err
		}
		p.compare(other, &p.result.Position, moved)
	}
	return nil
}

// company keeps three rows in their places and fills the others with the first.
func (p *probe) company(ctx context.Context, other *Slot) error {
	for _, kept := range []int{0, p.rows / 2, p.rows - 1} {
		p.fill(other, func(row int) int {
			if row == kept {
				return row
			}
			return 0
		})
		if err := p.session.Run(ctx, other); err != nil {
			return err
		}
		p.compareRow(other, kept, kept, &p.result.Company)
	}
	return nil
}

func (p *probe) batchSize(ctx context.Context, _ *Slot) error {
	shapes := shapesOf(p.reference.Inputs)
	for i, info := range p.session.inputs {
		if info.Dims[0] >= 0 {
			return nil
		}
		shapes[i] = slices.Clone(shapes[i])
		shapes[i][0] = 1
	}
	single, err := p.session.NewSlot(ctx, shapes...)
	if err != nil {
		return err
	}
	defer single.Close()
	for _, row := range []int{0, p.rows / 2, p.rows - 1} {
		p.fill(single, func(int) int { return row })
		if err := p.session.Run(ctx, single); err != nil {
			return err
		}
		p.compareRow(single, 0, row, &p.result.BatchSize)
	}
	return nil
}

// fill puts the reference row from(i) into row i of slot.
func (p *probe) fill(slot *Slot, from func(row int) int) {
	for i, t := range slot.Inputs {
		source := p.reference.Inputs[i]
		for row := range int(t.Dims[0]) {
			copyRow(t.f32, row, source.f32, from(row), p.rows)
			copyRow(t.f16, row, source.f16, from(row), p.rows)
			copyRow(t.u8, row, source.u8, from(row), p.rows)
		}
	}
}

func copyRow[E any](dst []E, to int, src []E, from, rows int) {
	width := len(src) / rows
	copy(dst[to*width:], src[from*width:(from+1)*width])
}

func (p *probe) compare(slot *Slot, equal *bool, from func(row int) int) {
	for row := range p.rows {
		p.compareRow(slot, row, from(row), equal)
	}
}

// compareRow compares row of slot's outputs with row want of the reference.
func (p *probe) compareRow(slot *Slot, row, want int, equal *bool) {
	for i, t := range slot.Outputs {
		reference := p.reference.Outputs[i].f32
		width := len(reference) / p.rows
		for j := range width {
			a, b := t.f32[row*width+j], reference[want*width+j]
			if math.Float32bits(a) == math.Float32bits(b) {
				continue
			}
			*equal = false
			difference := math.Abs(float64(a) - float64(b))
			if math.IsNaN(difference) {
				difference = math.Inf(1)
			}
			p.result.MaxDifference = max(p.result.MaxDifference, difference)
		}
	}
}

func shapesOf(tensors []*Tensor) [][]int64 {
	shapes := make([][]int64, len(tensors))
	for i, t := range tensors {
		shapes[i] = t.Dims
	}
	return shapes
}
