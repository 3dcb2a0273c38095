package stack

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	composespec "github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/network"
)

// service has a service in the words of docker's types.
func (l *loading) service(name string, s, services map[string]any, env map[string]string) error {
	for key, value := range s {
		if value == nil {
			delete(s, key)
		}
	}
	switch {
	case s["label_file"] != nil:
		return errors.New("label_file isn't supported: write the labels into labels")
	case s["provider"] != nil:
		return errors.New("provider isn't supported: a service is an image that nodes run")
	}
	if err := limits(s); err != nil {
		return err
	}
	for _, key := range []string{"environment", "labels", "sysctls"} {
		stringify(s[key])
	}
	stringify(mapping(s["deploy"])["labels"])
	stringify(mapping(s["logging"])["options"])
	more := serviceMore{groups: texts(s["group_add"]), dnsOptions: texts(s["dns_opt"])}
	if adj, ok := s["oom_score_adj"]; ok {
		n, err := strconv.ParseInt(fmt.Sprint(adj), 10, 64)
		if err != nil {
			return fmt.Errorf("oom_score_adj: %w", err)
		}
		more.oomScoreAdj = n
	}
	var err error
	if more.dependsOn, err = l.dependsOn(name, s, services); err != nil {
		return err
	}
	l.more[name] = more
	delete(s, "group_add")
	delete(s, "dns_opt")
	delete(s, "oom_score_adj")

	if err := l.envFiles(name, s, env); err != nil {
		return err
	}
	for _, port := range list(s["ports"]) {
		if err := numbers(mapping(port), "target", "published"); err != nil {
			return fmt.Errorf("ports: %w", err)
		}
	}
	for _, key := range []string{"secrets", "configs"} {
		for _, file := range list(s[key]) {
			if err := fileMode(mapping(file)); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	for _, volume := range list(s["volumes"]) {
		volume := mapping(volume)
		if volume == nil {
			continue
		}
		// Swarm never makes what isn't there; the short way of writing has it made.
		delete(mapping(volume["bind"]), "create_host_path")
		for _, key := range []string{"bind", "volume", "tmpfs"} {
			if m, ok := volume[key].(map[string]any); ok && len(m) == 0 {
				delete(volume, key)
			}
		}
	}
	return nil
}

// conditions are those of depends_on, in the words of the label that has them.
var conditions = map[string]string{
	"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed",
}

// dependsOn gives what the label says of depends_on, which the scheduler goes by.
func (l *loading) dependsOn(name string, s, services map[string]any) (string, error) {
	var all []string
	on := mapping(s["depends_on"])
	delete(s, "depends_on")
	for _, of := range slices.Sorted(maps.Keys(on)) {
		how := mapping(on[of])
		path := fmt.Sprintf("services.%s.depends_on.%s", name, of)
		word, ok := conditions[fmt.Sprint(how["condition"])]
		switch {
		case !ok:
			return "", fmt.Errorf("depends_on %s: condition %v is none of service_started, service_healthy and service_completed_successfully", of, how["condition"])
		case services[of] == nil:
			if how["required"] != false {
				l.warn(path + " is ignored: there is no such service, or its profile isn't asked for")
			}
			continue
		case how["restart"] == true:
			l.warn(path + ".restart is ignored: tasks go on when what they depend on is restarted")
		}
		all = append(all, of+":"+word)
	}
	return strings.Join(all, ","), nil
}

// limits puts what the Specification has at the service itself where Swarm has it.
func limits(s map[string]any) error {
	for _, m := range []struct{ key, part, word string }{
		{"cpus", "limits", "cpus"}, {"mem_limit", "limits", "memory"}, {"pids_limit", "limits", "pids"}, {"mem_reservation", "reservations", "memory"},
	} {
		value, ok := s[m.key]
		if !ok {
			continue
		}
		delete(s, m.key)
		part := within(s, "deploy", "resources", m.part)
		if old, ok := part[m.word]; ok && fmt.Sprint(old) != fmt.Sprint(value) {
			return fmt.Errorf("%s is %v, and deploy.resources.%s.%s is %v: write one of them", m.key, value, m.part, m.word, old)
		}
		part[m.word] = value
	}
	if scale, ok := s["scale"]; ok {
		delete(s, "scale")
		deploy := within(s, "deploy")
		if old, ok := deploy["replicas"]; ok && fmt.Sprint(old) != fmt.Sprint(scale) {
			return fmt.Errorf("scale is %v, and deploy.replicas is %v: write one of them", scale, old)
		}
		deploy["replicas"] = scale
	}
	for _, part := range []string{"limits", "reservations"} {
		if r := mapping(mapping(mapping(s["deploy"])["resources"])[part]); r != nil {
			for _, word := range []string{"cpus", "memory"} {
				if value, ok := r[word]; ok {
					r[word] = fmt.Sprint(value)
				}
			}
		}
	}
	return nil
}

// envFiles leaves paths, which docker's loader reads. It takes a line as it is, where the
// Specification's reads quotes and variables in it.
func (l *loading) envFiles(name string, s map[string]any, env map[string]string) error {
	var paths []any
	for _, entry := range list(s["env_file"]) {
		e := mapping(entry)
		path, _ := e["path"].(string)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && e["required"] == false {
			continue
		} else if err != nil {
			return fmt.Errorf("env_file: %w", err)
		}
		switch e["format"] {
		case nil, "":
			read, err := dotenv.ParseWithLookup(bytes.NewReader(data), func(k string) (string, bool) { v, ok := env[k]; return v, ok })
			if err != nil || differs(data, read) {
				l.warn(fmt.Sprintf("services.%s.env_file: %s is read as docker stack deploy reads it: a line is taken as it is, with quotes, $ and what looks like a comment", name, path))
			}
		case "raw":
		default:
			return fmt.Errorf("env_file: format %v isn't supported: leave it out, or write raw", e["format"])
		}
		paths = append(paths, path)
	}
	delete(s, "env_file")
	if len(paths) > 0 {
		s["env_file"] = paths
	}
	return nil
}

// differs tells whether lines, taken as they are, say something else than read.
func differs(data []byte, read map[string]string) bool {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		key, value, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(line, "#") && read[key] != value {
			return true
		}
	}
	return false
}

// fileMode is a file's mode as a number: in the Specification it may be a text, in octal.
func fileMode(file map[string]any) error {
	text, ok := file["mode"].(string)
	if !ok {
		return nil
	}
	mode, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil {
		return fmt.Errorf("mode %q is no octal number", text)
	}
	file["mode"] = int(mode)
	return nil
}

// numbers has texts of digits as numbers.
func numbers(m map[string]any, keys ...string) error {
	for _, key := range keys {
		text, ok := m[key].(string)
		switch {
		case !ok:
		case text == "":
			delete(m, key)
		default:
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("%s %q is no port: in this way of writing it must be one", key, text)
			}
			m[key] = n
		}
	}
	return nil
}

// takeData takes out of the file what secrets and configs have that isn't a file, and what
// networks have, for which docker's types have no field.
func (l *loading) takeData(dict map[string]any, env map[string]string) error {
	for _, kind := range []string{"secret", "config"} {
		entries := mapping(dict[kind+"s"])
		for key, entry := range entries {
			e := mapping(entry)
			if e == nil {
				return fmt.Errorf("%s %s is empty: write file, content, environment or external", kind, key)
			}
			delete(e, composespec.SecretConfigXValue)
			stringify(e["labels"])
			var data []byte
			ways := 0
			for _, way := range []string{"file", "content", "environment", "driver", "external"} {
				if v, ok := e[way]; ok && v != false && v != "" {
					ways++
				}
			}
			if ways != 1 {
				return fmt.Errorf("%s %s: write one of file, content, environment and external", kind, key)
			}
			switch {
			case e["environment"] != nil:
				name, _ := e["environment"].(string)
				value, ok := env[name]
				if !ok {
					return fmt.Errorf("%s %s: variable %s of the environment isn't set", kind, key, name)
				}
				data = []byte(value)
			case e["content"] != nil:
				text, _ := e["content"].(string)
				data = []byte(text)
			case e["file"] != nil:
				path, _ := e["file"].(string)
				read, err := os.ReadFile(path)
				if err != nil {
					return fmt.Errorf("%s %s: %w", kind, key, err)
				}
				data = read
			default:
				continue
			}
			delete(e, "environment")
			delete(e, "content")
			l.data[kind+" "+key] = data
		}
	}
	for key, entry := range mapping(dict["networks"]) {
		n := mapping(entry)
		stringify(n["labels"])
		stringify(n["driver_opts"])
		var more networkMore
		if on, ok := n["enable_ipv6"].(bool); ok {
			more.ipv6 = &on
			delete(n, "enable_ipv6")
		}
		for _, pool := range list(mapping(n["ipam"])["config"]) {
			p := mapping(pool)
			text := func(key string) string { v, _ := p[key].(string); delete(p, key); return v }
			subnet, _ := p["subnet"].(string)
			found := network.IPAMConfig{Subnet: subnet, Gateway: text("gateway"), IPRange: text("ip_range")}
			for host, address := range mapping(p["aux_addresses"]) {
				if found.AuxAddress == nil {
					found.AuxAddress = map[string]string{}
				}
				found.AuxAddress[host] = fmt.Sprint(address)
			}
			delete(p, "aux_addresses")
			more.pools = append(more.pools, found)
		}
		l.networks[key] = more
	}
	for _, entry := range mapping(dict["volumes"]) {
		stringify(mapping(entry)["labels"])
		stringify(mapping(entry)["driver_opts"])
	}
	return nil
}

func mapping(v any) map[string]any { m, _ := v.(map[string]any); return m }
func list(v any) []any             { l, _ := v.([]any); return l }

// within is the mapping that keys lead to, made if it isn't there.
func within(m map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		next := mapping(m[key])
		if next == nil {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	return m
}

// stringify has yes and no of a mapping as texts, which docker's schema wants quoted.
func stringify(v any) {
	for key, value := range mapping(v) {
		if b, ok := value.(bool); ok {
			mapping(v)[key] = strconv.FormatBool(b)
		}
	}
}

func texts(v any) (all []string) {
	if text, ok := v.(string); ok {
		return []string{text}
	}
	for _, element := range list(v) {
		all = append(all, fmt.Sprint(element))
	}
	return all
}

func clone(v any) any { return cloneWith(v, func(text string) string { return text }) }

// cloneWith is a copy with other texts.
func cloneWith(v any, text func(string) string) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, value := range v {
			c[key] = cloneWith(value, text)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, value := range v {
			c[i] = cloneWith(value, text)
		}
		return c
	case string:
		return text(v)
	}
	return v
}
