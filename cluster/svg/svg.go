// Package svg builds pictures of what happened on several nodes over time: for the timeline of managers
// (cluster/timeline), and for the lab's reports.
//
// It knows shapes and texts, and nothing of what they mean. A shape has the classes of the page's style sheet, so
// that a page with a strict content policy can show it; Style is a sheet for pictures that stand alone.
//
// Guarantees: it is pure, and all texts are escaped.
package svg

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Picture is a picture that is being made. The zero value is an empty one.
type Picture struct{ strings.Builder }

// Add adds what is given, which must be SVG.
func (p *Picture) Add(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// Rect adds a rectangle.
func (p *Picture) Rect(class string, x, y, w, h float64, title string) {
	p.Add(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f">%s</rect>`, class, x, y, w, h, titled(title))
}

// Text adds a text.
func (p *Picture) Text(class string, x, y float64, text string) {
	p.Add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(text))
}

// Line adds a line.
func (p *Picture) Line(class string, x1, y1, x2, y2 float64, title string) {
	p.Add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f">%s</line>`, class, x1, y1, x2, y2, titled(title))
}

// Dot adds a circle.
func (p *Picture) Dot(class string, x, y, radius float64, title string) {
	p.Add(`<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f">%s</circle>`, class, x, y, radius, titled(title))
}

func titled(title string) string {
	if title == "" {
		return ""
	}
	return "<title>" + html.EscapeString(title) + "</title>"
}

// Done is the whole picture, for a page. Label is for those who don't see it.
func (p *Picture) Done(class string, width, height float64, label string) string {
	return fmt.Sprintf(`<svg class="%s" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, class, width, height, html.EscapeString(label)) + "\n" + p.String() + "</svg>"
}

// Nice is a round number not less than v.
func Nice(v float64) float64 {
	size := math.Pow(10, math.Floor(math.Log10(max(v, 1e-9))))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*size >= v {
			return f * size
		}
	}
	return 10 * size
}
