package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

	"skep/cluster/svg"
)

//go:embed scale.html
var scaleText string

var scaleTemplate = template.Must(template.New("scale").Parse(scaleText))

// scalePage is what scale.html shows.
type scalePage struct {
	Scale
	Title    string
	Style    template.CSS
	Rows     []ScaleRow
	Cells    [][]string
	Pictures []scalePicture
}

type scalePicture struct {
	What string
	SVG  template.HTML
	Key  []scaleKey
}

type scaleKey struct {
	Colour template.CSS
	Name   string
}

// colours are those of a picture's lines, in order.
var colours = []template.CSS{"var(--leader)", "var(--write)", "var(--ready)", "var(--down)", "var(--other)"}

// WriteScalePage writes the page of a run.
func WriteScalePage(w io.Writer, s Scale) error {
	p := scalePage{Scale: s, Title: fmt.Sprintf("%d agents, %d tasks", s.Agents, s.Tasks), Style: svg.Style, Rows: ScaleRows(s)}
	for i := range s.Steps {
		p.Cells = append(p.Cells, s.stepCells(&s.Steps[i]))
	}
	p.Pictures = scalePictures(s)
	return scaleTemplate.Execute(w, p)
}

// line is one line of a picture: a value per sample, NaN-free; fewer values than samples end it.
type line struct {
	name   string
	values []float64
}

func scalePictures(s Scale) []scalePicture {
	running, sessions := line{name: "tasks that run"}, line{name: "agents with a session"}
	for _, sample := range s.Samples {
		running.values = append(running.values, float64(sample.Running))
		sessions.values = append(sessions.values, float64(sample.Sessions))
	}
	var cpu, memory []line
	agentsCPU, agentsRSS := line{name: "all agents"}, line{name: "all agents"}
	for i, p := range s.Processes {
		used, resident := line{name: p.Name}, line{name: p.Name}
		for j, sample := range s.Samples {
			share, size := 0.0, 0.0
			if i < len(sample.RSS) {
				size = float64(sample.RSS[i]) / 1e6
			}
			if before := s.Samples[max(0, j-1)]; i < len(sample.CPU) && i < len(before.CPU) && sample.At > before.At {
				// A process that was started anew begins at 0 again.
				share = max(0, 100*(sample.CPU[i]-before.CPU[i])/(float64(sample.At-before.At)/1000))
			}
			used.values, resident.values = append(used.values, share), append(resident.values, size)
		}
		if p.Manager {
			cpu, memory = append(cpu, used), append(memory, resident)
			continue
		}
		agentsCPU.values, agentsRSS.values = plus(agentsCPU.values, used.values), plus(agentsRSS.values, resident.values)
	}
	return []scalePicture{
		s.draw("Tasks that run", running),
		s.draw("Agents with a session", sessions),
		s.draw("Processor time, % of a core", append(cpu, agentsCPU)...),
		s.draw("Resident memory, MB", append(memory, agentsRSS)...),
	}
}

func plus(a, b []float64) []float64 {
	if a == nil {
		return b
	}
	for i := range b {
		a[i] += b[i]
	}
	return a
}

// draw draws lines over the run's time, with its steps.
func (s Scale) draw(what string, lines ...line) scalePicture {
	const width, high, left, top = 1060.0, 220.0, 76.0, 20.0
	var p svg.Picture
	most := 1.0
	for _, l := range lines {
		for _, v := range l.values {
			most = max(most, v)
		}
	}
	most = svg.Nice(most)
	x := func(at Ms) float64 {
		return left + (width-left-8)*float64(min(max(at, 0), s.Length))/float64(max(s.Length, 1))
	}
	y := func(v float64) float64 { return top + high - high*v/most }
	for i, step := range s.Steps {
		if i%2 == 0 {
			p.Rect("lane", x(step.Began), top, x(step.Ended)-x(step.Began), high, step.Name)
		}
		p.Text("quietly", x(step.Began)+2, top-6, step.Name)
	}
	for _, share := range []float64{0, 0.5, 1} {
		p.Line("axis", left, y(share*most), width-8, y(share*most), "")
		p.Text("quietly end", left-8, y(share*most)+4, fmt.Sprintf("%g", share*most))
	}
	out := scalePicture{What: what}
	for i, l := range lines {
		colour, points := colours[i%len(colours)], ""
		for j, v := range l.values {
			points += fmt.Sprintf("%.1f,%.1f ", x(s.Samples[j].At), y(v))
		}
		p.Add(`<polyline fill="none" style="stroke:%s" stroke-width="1.5" points="%s"/>`, colour, points)
		out.Key = append(out.Key, scaleKey{colour, l.name})
	}
	for _, tenth := range []float64{0, 0.25, 0.5, 0.75, 1} {
		at := Ms(tenth) * s.Length
		p.Text("quietly mid", x(at), top+high+16, fmt.Sprintf("%.0f s", float64(at)/1000))
	}
	out.SVG = template.HTML(p.Done("time", width, top+high+22, what))
	return out
}
