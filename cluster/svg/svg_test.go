package svg

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestNice(t *testing.T) {
	for v, want := range map[float64]float64{0.3: 0.5, 1: 1, 1.1: 2, 3: 5, 7: 10, 230: 500} {
		if got := Nice(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("Nice(%v) = %v, want %v", v, got, want)
		}
	}
}

// Whatever texts are, the picture is one.
func TestPicture_Escapes(t *testing.T) {
	var p Picture
	evil := `</text><script>"&'`
	p.Rect("lane", 1, 2, 3, 4, evil)
	p.Line("axis", 1, 2, 3, 4, evil)
	p.Dot("dot", 1, 2, 3, evil)
	p.Text("", 1, 2, evil)
	picture := p.Done("time", 10, 10, evil)
	if strings.Contains(picture, "<script") {
		t.Errorf("a text is part of the picture: %s", picture)
	}
	for dec := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
