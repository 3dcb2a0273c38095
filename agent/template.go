package agent

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"skep/cluster"
)

// Template fills in the templates in a task's spec, and in its secrets and
// configs, as Swarm does. After the first error it leaves everything as it is.
type Template struct {
	assignment Assignment
	values     templateValues
	err        error
}

// templateValues are what a template can use. They have exported fields for
// nothing but that, and no methods, which a template could call.
type templateValues struct {
	Service struct {
		ID, Name string
		Labels   map[string]string
	}
	Node struct {
		ID, Hostname string
		Platform     struct{ Architecture, OS string }
	}
	Task struct{ ID, Name, Slot string }
}

// NewTemplate returns the Template of a task.
func NewTemplate(a Assignment) *Template {
	x := &Template{assignment: a}
	v := &x.values
	v.Service.ID, v.Service.Name, v.Service.Labels = a.Task.ServiceID, a.Revision.ServiceName, a.Revision.ServiceLabels
	v.Node.ID, v.Node.Hostname = a.Task.NodeID, a.Hostname
	v.Node.Platform.Architecture, v.Node.Platform.OS = architecture(runtime.GOARCH), runtime.GOOS
	v.Task.ID, v.Task.Name, v.Task.Slot = a.Task.ID, a.ContainerName(), a.Slot()
	return x
}

// Err is the first error; it names what the template is for and why it can't be filled in.
// Of secrets and configs it says nothing that could be a part of their text.
func (x *Template) Err() error { return x.err }

// Expand fills in one template; what names it in errors.
func (x *Template) Expand(what, text string) string {
	return x.expand(what, text, cluster.ConfigLimit, nil)
}

// Env gives the container's environment.
func (x *Template) Env() []string {
	env := append([]string(nil), x.assignment.Revision.Spec.ContainerSpec.Env...)
	for i, entry := range env {
		if key, value, ok := strings.Cut(entry, "="); ok {
			env[i] = key + "=" + x.Expand("environment variable "+key, value)
		}
	}
	return env
}

// errNoSuch is the error of a template that asks for what the service hasn't got.
var errNoSuch = errors.New("it asks for a secret or config that the service does not refer to")

// expand fills in a template, whose result must be shorter than limit; functions are
// known to it beside those that all templates know.
func (x *Template) expand(what, text string, limit int, functions map[string]func(string) (string, error)) string {
	if !strings.Contains(text, "{{") || x.err != nil {
		return text
	}
	work := &budget{left: workPerByte * limit}
	known := work.boundedFunctions(limit)
	for name, function := range functions {
		known[name] = work.spending(function)
	}
	parsed, fault := cluster.ParseTemplate(text, known)
	var err error
	if fault == nil {
		out := &boundedBuilder{limit: limit}
		if err = parsed.Execute(out, x.values); err == nil {
			return out.String()
		}
		fault = cluster.FaultOf(err)
	}
	if functions != nil {
		fault = fault.Hide()
	}
	why := fault.Error()
	switch {
	case errors.Is(err, errNoSuch):
		why = errNoSuch.Error()
	case errors.Is(err, errTooLong):
		why = fmt.Sprintf("it gives more than %d bytes", limit-1)
	case errors.Is(err, errTooMuch):
		why = fmt.Sprintf("its functions make more than %d bytes together", workPerByte*limit)
	}
	x.err = cluster.Errorf(cluster.ErrInvalid, "expand template of %s: %s", what, why)
	return text
}

// body fills in a secret or config. Its template also knows the environment, and
// the service's secrets and configs by the name of their file, as they are.
func (x *Template) body(what string, data []byte, limit int) ([]byte, error) {
	spec, env := x.assignment.Revision.Spec.ContainerSpec, x.Env()
	known := map[string]func(string) (string, error){
		"env": func(name string) (string, error) {
			for _, entry := range env {
				if key, value, ok := strings.Cut(entry, "="); ok && key == name {
					return value, nil
				}
			}
			return "", nil
		},
		"secret": func(file string) (string, error) {
			for _, ref := range spec.Secrets {
				if secret := x.assignment.Secrets[ref.SecretID]; secret != nil && ref.File != nil && ref.File.Name == file {
					return string(secret.Spec.Data), nil
				}
			}
			return "", errNoSuch
		},
		"config": func(file string) (string, error) {
			for _, ref := range spec.Configs {
				if config := x.assignment.Configs[ref.ConfigID]; config != nil && ref.File != nil && ref.File.Name == file {
					return string(config.Spec.Data), nil
				}
			}
			return "", errNoSuch
		},
	}
	expanded := x.expand(what, string(data), limit, known)
	return []byte(expanded), x.err
}
