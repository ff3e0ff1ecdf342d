package report

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// count writes a whole number with its thousands apart.
func count[T int | int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func share(x float64) string { return strconv.FormatFloat(x, 'f', 3, 64) }

func percent(x float64) string {
	if x > 0 && x < 0.001 {
		return "less than 0.1 %"
	}
	return strconv.FormatFloat(100*x, 'g', 2, 64) + " %"
}

// decimal has one digit behind the point, and none where there is nothing.
func decimal(x float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0")
}

func small(x float64) string {
	s := strconv.FormatFloat(x, 'e', 1, 64)
	mantissa, exponent, _ := strings.Cut(s, "e")
	e, err := strconv.Atoi(exponent)
	if err != nil || e > -3 {
		return strconv.FormatFloat(x, 'g', 2, 64)
	}
	return mantissa + " × 10" + superscript(e)
}

func optional(x *float64) string {
	if x == nil {
		return "–"
	}
	return share(*x)
}

func date(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

func seconds(x float64) string {
	switch {
	case x >= 3600:
		return decimal(x/3600) + " h"
	case x >= 120:
		return decimal(x/60) + " min"
	case x >= 10:
		return strconv.FormatFloat(x, 'f', 0, 64) + " s"
	}
	return strconv.FormatFloat(x, 'f', 2, 64) + " s"
}

func rounded(x float64) float64 { return math.Round(100*x) / 100 }

func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

func superscript(n int) string {
	return strings.NewReplacer("-", "⁻", "0", "⁰", "1", "¹", "2", "²", "3", "³", "4", "⁴", "5", "⁵", "6", "⁶", "7", "⁷", "8", "⁸", "9", "⁹").Replace(strconv.Itoa(n))
}
