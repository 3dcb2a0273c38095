package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestBounds_AreThereForEveryField holds that a field that comes with a newer version of
// Docker's types, or of ours, isn't taken before somebody thought of how much may be in it.
func TestBounds_AreThereForEveryField(t *testing.T) {
	missing, used := map[string]bool{}, map[string]bool{}
	for root := range totals {
		fieldsWithout(root, missing, used, map[reflect.Type]bool{})
	}
	for field := range missing {
		t.Errorf("%s has no bound: give it one in bounds", field)
	}
	for field := range bounds {
		if !used[field] {
			t.Errorf("bounds has %s, which clients can't send", field)
		}
	}
}

// fieldsWithout notes which fields in a type can have any size and have no bound, and
// which have one.
func fieldsWithout(t reflect.Type, missing, used map[string]bool, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		if t.Kind() == reflect.Map && t.Key().Kind() != reflect.String {
			missing["the keys of "+t.String()] = true
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		name := t.String() + "." + field.Name
		if b, ok := bounds[name]; ok {
			used[name] = true
			if many := strings.Contains("slice map", field.Type.Kind().String()); many && b.count == 0 && field.Type.Elem().Kind() != reflect.Uint8 {
				t := field.Type
				missing[name+" ("+t.String()+", how many)"] = true
			}
		} else if sized(field.Type) {
			missing[name] = true
		}
		fieldsWithout(field.Type, missing, used, seen)
	}
}

// TestBounds_AFieldWithoutIsRefused plants such a field.
func TestBounds_AFieldWithoutIsRefused(t *testing.T) {
	type later struct {
		Driver string
		Inner  struct{ Notes []string }
	}
	missing := map[string]bool{}
	fieldsWithout(reflect.TypeFor[later](), missing, map[string]bool{}, map[reflect.Type]bool{})
	if len(missing) != 2 {
		t.Errorf("without a bound are %v", missing)
	}
	if err := checkBounds(&later{}); err == nil || statusOf(err) != 500 {
		t.Errorf("a type without any bounds: %v", err)
	}
	totals[reflect.TypeFor[later]()] = 100
	defer delete(totals, reflect.TypeFor[later]())
	if err := checkBounds(&later{}); err != nil {
		t.Error(err)
	}
	with := later{}
	with.Inner.Notes = []string{"a"}
	if err := checkBounds(&with); err == nil || statusOf(err) != 501 || !strings.Contains(err.Error(), "Inner.Notes") {
		t.Errorf("a field without a bound: %v", err)
	}
}

// What people do send: as much of everything as somebody was seen to have, and more.
func TestBounds_LeaveRoom(t *testing.T) {
	b := stocked(t)
	wanted := spec("large", func(s *swarm.ServiceSpec) {
		s.Labels = labelled(300, "traefik.http.routers.a.rule.")
		s.Labels["a document"] = strings.Repeat("key: value # \U0001F41D\n\tmore\r\n", 1000)
		c := s.TaskTemplate.ContainerSpec
		c.Env = append(numbered(1000, "A_VARIABLE=with some text and a number "), "PS1=\x1b[1m$ \x1b[0m", "CERT="+strings.Repeat("x", 60_000))
		c.Args = append(numbered(2000, "file-"), "a\nscript\n\tof lines")
		for i := range cluster.MaxPorts {
			s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, swarm.PortConfig{
				Protocol: swarm.PortConfigProtocolUDP, TargetPort: uint32(i + 10_000), PublishedPort: uint32(i + 10_000), PublishMode: swarm.PortConfigPublishModeHost})
		}
		s.TaskTemplate.Placement.Constraints = append(numbered(100, "node.labels.no-"), `node.hostname =~ (web|db)-[0-9]{1,3}\.example\.com`)
		for i := range 100 {
			s.TaskTemplate.Placement.Constraints[i] += "!=x"
		}
		c.Sysctls = map[string]string{"net.ipv4.tcp_rmem": "4096\t87380\t6291456"}
		c.Privileges = &swarm.Privileges{Seccomp: &swarm.SeccompOpts{Mode: swarm.SeccompModeCustom, Profile: []byte(strings.Repeat("{}", 20_000))}}
	})
	b.create(wanted)
	config := swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "largest", Labels: labelled(300, "label-")}, Data: make([]byte, cluster.ConfigLimit-1)}
	b.do("POST", "/configs/create", config).want(t, 201, "")
	b.do("POST", "/configs/create", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "larger"}, Data: make([]byte, cluster.ConfigLimit)}).
		want(t, 400, "config data must be larger than 0 and less than")
}

// A reason says which field and what to do, and nothing of a value.
func TestBounds_Reasons(t *testing.T) {
	b := stocked(t)
	for want, body := range map[string]string{
		`Labels[\"a\"]: has a control character in it, at byte 6: leave it out`:                 `{"Labels":{"a":"canary\u001b"}}`,
		`TaskTemplate.ContainerSpec.Command[1]: has a NUL in it, at byte 6: leave it out`:       `{"TaskTemplate":{"ContainerSpec":{"Command":["a","canary\u0000"]}}}`,
		`TaskTemplate.ContainerSpec.Mounts[0].VolumeOptions.DriverConfig.Options[\"o\"]: has a`: `{"TaskTemplate":{"ContainerSpec":{"Mounts":[{"VolumeOptions":{"DriverConfig":{"Options":{"o":"canary\u202e"}}}}]}}}`,
	} {
		if got := b.do("POST", "/services/create", body).want(t, 400, want); strings.Contains(got.body, "canary") {
			t.Error(got.body)
		}
	}
	secret, _ := json.Marshal(swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a", Labels: labelled(2000, "")}, Data: []byte("canary")})
	b.do("POST", "/secrets/create", string(secret)).want(t, 400, "Labels: has 2000 elements, more than 1000")
	b.do("POST", "/services/create", spec("a"), "X-Registry-Auth", strings.Repeat("x", maxAuth+1)).want(t, 400, "X-Registry-Auth: has")
}
