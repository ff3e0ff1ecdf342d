package pipeline

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes; YAML may write it with a unit (64MiB, 2GB).
type Bytes int64

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// parse reads a whole number, or a number with a unit.
func (b *Bytes) parse(text string) error {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		*b = Bytes(n)
		return nil
	}
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if n *= float64(u.factor); err == nil && n >= 0 && n < math.MaxInt64 && n == math.Trunc(n) {
			*b = Bytes(n)
			return nil
		}
		break
	}
	return fmt.Errorf("%q, which is not a number of bytes (write 64MiB, 2GB or 1048576)", text)
}

// String writes the largest binary unit that divides b.
func (b Bytes) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if f := byteUnits[u].factor; b != 0 && int64(b)%f == 0 {
			return strconv.FormatInt(int64(b)/f, 10) + byteUnits[u].suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a time.Duration that YAML and JSON write as 90s or 1h30m.
type Duration time.Duration

// parse reads what time.ParseDuration does, but no negative duration.
func (d *Duration) parse(text string) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return fmt.Errorf("%q, which is not a duration (write 90s, 5m or 2h)", text)
	}
	*d = Duration(v)
	return nil
}

// String writes the duration without trailing zero units.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	return d.parse(text)
}

// Size is a length in pixels, or a height and a width; empty is none.
type Size []int

// maxSide is more pixels than a side of any image format read here has.
const maxSide = 1 << 16

// String writes the size as YAML.
func (s Size) String() string {
	switch len(s) {
	case 0:
		return "0"
	case 1:
		return strconv.Itoa(s[0])
	default:
		return fmt.Sprintf("[%d, %d]", s[0], s[1])
	}
}
