package console

import (
	"io/fs"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestStyle_CanBeRead holds all colours of text to 4.5:1 on each ground that they stand on, as
// WCAG 2.1 (1.4.3) has it, in light and in dark.
func TestStyle_CanBeRead(t *testing.T) {
	data, err := fs.ReadFile(files, "static/console.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, _ := strings.Cut(string(data), "@media (prefers-color-scheme: dark)")
	dark, _, _ = strings.Cut(dark, "* { box-sizing")
	for name, text := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]float64{}
		for _, found := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{3,6})\b`).FindAllStringSubmatch(text, -1) {
			colours[found[1]] = luminance(t, found[2])
		}
		for _, ground := range []string{"ground", "sheet", "raised", "bad-ground"} {
			for _, on := range []string{"text", "muted", "link", "ok", "busy", "wait", "bad", "stop", "off", "brand"} {
				a, b := colours[ground], colours[on]
				if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < 4.5 {
					t.Errorf("%s: %s on %s is %.2f:1", name, on, ground, ratio)
				}
			}
		}
	}
}

// luminance is a colour's, as WCAG counts it.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	sum := 0.0
	for i, weight := range []float64{.2126, .7152, .0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= .03928 {
			c /= 12.92
		} else {
			c = math.Pow((c+.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
