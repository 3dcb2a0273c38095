package api

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// What clients send is bounded here, once, as it is read: how much there is of each
// field, of what characters, and of all together. Whatever else is wrong with it is for
// the other checks to say. A field that has no bound here is refused.

const (
	// maxSpec is how much text a service may have. It is kept three times (the spec, the
	// one before, the revision), goes to each node with a task of it, and is in the list
	// of tasks once for each of them.
	maxSpec = 256 << 10
	// maxSettings is the same for what else clients send, which is small by nature. The
	// data of secrets and configs isn't counted: it has bounds of its own.
	maxSettings = 64 << 10
	// elementSize is what an element of a list counts beside its text: what it takes in
	// memory without any.
	elementSize = 16

	// maxPlan is how much the services of a plan may have together.
	maxPlan = 4 * maxSpec

	// maxListed is how many elements a list or map may have that people write: more than
	// they do, and few enough for each to be looked at wherever the spec is.
	maxListed = 1000
	// maxArguments is the same for commands and environments, which programs write.
	maxArguments = 4096
	// maxAddresses is how many addresses of the same thing make sense.
	maxAddresses = 64

	// maxWord is how long a name may be that has no shorter bound of its own, maxLine a
	// line of a file in the container, or a key of a map.
	maxWord = 256
	maxLine = 1024
	// maxPath is Linux's PATH_MAX.
	maxPath = 4096
	// maxText is how long the value of a label or an option may be: some are whole
	// documents.
	maxText = 32 << 10
	// maxArgument is the longest argument, or variable, that Linux gives a process
	// (MAX_ARG_STRLEN, with the NUL at its end).
	maxArgument = 128<<10 - 1
	// maxProfile is how long a seccomp profile may be; Docker's own has 13 kB.
	maxProfile = 128 << 10
	// maxPEM is how long certificates and keys may be.
	maxPEM = 32 << 10
	// maxData is what a request may have of a secret's or config's data. How much of it
	// may be kept is said in Swarm's words by secretOrConfig.check.
	maxData = 2 << 20
	// maxAuth is how long registry credentials may be: tokens have some kilobytes.
	maxAuth = 16 << 10
)

// bound is what one field may have.
type bound struct {
	count  int // of elements, in a list or map
	length int // of a text, or of each in a list or map, in bytes
	within charset
}

// charset is which characters are refused, and what they are called.
type charset struct {
	refuses func(rune) bool
	name    string
}

var (
	// printable is what names are of: a terminal shows it, and obeys none of it.
	printable = charset{commands, "a control character"}
	// lines is what texts are of.
	lines = charset{func(c rune) bool { return commands(c) && c != '\n' && c != '\t' && c != '\r' }, "a control character"}
	// anything is what processes can be given.
	anything = charset{func(c rune) bool { return c == 0 }, "a NUL"}
)

// commands tells of what a terminal would obey: control characters, and those that turn
// the direction of what follows.
func commands(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) }

// bounds has each field of what clients send that can have any size, by type and name.
var bounds = func() map[string]bound {
	all := map[string]bound{}
	for _, group := range []struct {
		bound
		fields string
	}{
		{bound{0, maxWord, printable}, `swarm.Annotations.Name swarm.Driver.Name mount.Driver.Name
			swarm.TaskSpec.Runtime swarm.ContainerSpec.User swarm.ContainerSpec.StopSignal swarm.ContainerSpec.Isolation
			swarm.SELinuxContext.User swarm.SELinuxContext.Role swarm.SELinuxContext.Type swarm.SELinuxContext.Level
			swarm.SeccompOpts.Mode swarm.AppArmorOpts.Mode swarm.CredentialSpec.Config swarm.CredentialSpec.File swarm.CredentialSpec.Registry
			swarm.SecretReference.SecretID swarm.SecretReference.SecretName swarm.ConfigReference.ConfigID swarm.ConfigReference.ConfigName
			swarm.SecretReferenceFileTarget.UID swarm.SecretReferenceFileTarget.GID swarm.ConfigReferenceFileTarget.UID swarm.ConfigReferenceFileTarget.GID
			swarm.NamedGenericResource.Kind swarm.NamedGenericResource.Value swarm.DiscreteGenericResource.Kind units.Ulimit.Name
			swarm.RestartPolicy.Condition swarm.UpdateConfig.FailureAction swarm.UpdateConfig.Order swarm.Platform.Architecture swarm.Platform.OS
			swarm.EndpointSpec.Mode swarm.PortConfig.Name swarm.PortConfig.Protocol swarm.PortConfig.PublishMode
			swarm.NetworkAttachmentConfig.Target swarm.NetworkAttachmentSpec.ContainerID mount.Mount.Type mount.Mount.Consistency mount.BindOptions.Propagation
			swarm.NodeSpec.Role swarm.NodeSpec.Availability swarm.ExternalCA.Protocol swarm.SpreadOver.SpreadDescriptor
			swarm.InitRequest.ListenAddr swarm.InitRequest.AdvertiseAddr swarm.InitRequest.DataPathAddr swarm.InitRequest.Availability
			swarm.JoinRequest.ListenAddr swarm.JoinRequest.AdvertiseAddr swarm.JoinRequest.DataPathAddr swarm.JoinRequest.Availability
			swarm.JoinRequest.JoinToken swarm.UnlockRequest.UnlockKey cluster.BackupRequest.Recipient cluster.ConsoleCode.Code cluster.TokenRequest.Role cluster.TokenRequest.For
			cluster.RestoreRequest.ListenAddr cluster.RestoreRequest.AdvertiseAddr cluster.RestoreRequest.Availability
			runtime.PluginSpec.Name runtime.PluginPrivilege.Name api.networkAsked.Name api.networkAsked.Driver api.networkAsked.Scope
			network.CreateRequest.Name network.CreateOptions.Driver network.CreateOptions.Scope network.ConfigReference.Network network.IPAM.Driver
			network.IPAMConfig.Subnet network.IPAMConfig.IPRange network.IPAMConfig.Gateway`},
		{bound{0, maxLine, printable}, `swarm.ContainerSpec.Image swarm.ContainerSpec.Hostname swarm.ExternalCA.URL
			runtime.PluginSpec.Remote runtime.PluginPrivilege.Description`},
		{bound{0, maxPath, printable}, `swarm.ContainerSpec.Dir mount.Mount.Source mount.Mount.Target mount.VolumeOptions.Subpath mount.ImageOptions.Subpath
			swarm.SecretReferenceFileTarget.Name swarm.ConfigReferenceFileTarget.Name cluster.RestoreRequest.Path`},
		{bound{maxListed, maxWord, printable}, `swarm.ContainerSpec.Groups swarm.ContainerSpec.CapabilityAdd swarm.ContainerSpec.CapabilityDrop
			swarm.NetworkAttachmentConfig.Aliases`},
		{bound{maxListed, maxLine, printable}, `swarm.ContainerSpec.Hosts swarm.DNSConfig.Search swarm.DNSConfig.Options mount.TmpfsOptions.Options
			runtime.PluginPrivilege.Value`},
		{bound{maxAddresses, maxWord, printable}, `swarm.DNSConfig.Nameservers swarm.InitRequest.DefaultAddrPool swarm.JoinRequest.RemoteAddrs
			network.IPAM.Config network.IPAMConfig.AuxAddress`},
		{bound{cluster.MaxConstraints, maxPath, lines}, `swarm.Placement.Constraints`},
		{bound{cluster.MaxPreferences, 0, printable}, `swarm.Placement.Preferences`},
		{bound{cluster.MaxPorts, 0, printable}, `swarm.EndpointSpec.Ports`},
		{bound{maxArguments, maxArgument, anything}, `swarm.ContainerSpec.Command swarm.ContainerSpec.Args swarm.ContainerSpec.Env v1.HealthcheckConfig.Test
			runtime.PluginSpec.Env`},
		{bound{maxListed, maxText, lines}, `swarm.Annotations.Labels swarm.ContainerSpec.Labels swarm.ContainerSpec.Sysctls mount.VolumeOptions.Labels
			swarm.Driver.Options mount.Driver.Options swarm.NetworkAttachmentConfig.DriverOpts swarm.ExternalCA.Options
			network.CreateOptions.Options network.CreateOptions.Labels network.IPAM.Options cluster.TokenRequest.Labels`},
		{bound{maxListed, 0, printable}, `swarm.ContainerSpec.Mounts swarm.ContainerSpec.Secrets swarm.ContainerSpec.Configs swarm.ContainerSpec.Ulimits
			swarm.Placement.Platforms swarm.Resources.GenericResources swarm.TaskSpec.Networks swarm.ServiceSpec.Networks
			swarm.CAConfig.ExternalCAs runtime.PluginSpec.Privileges cluster.PlanRequest.Services`},
		{bound{maxListed, maxWord, printable}, `cluster.PlanRequest.Remove cluster.PlanRequest.Networks cluster.PlanRequest.Secrets cluster.PlanRequest.Configs`},
		{bound{0, maxPEM, lines}, `swarm.CAConfig.SigningCACert swarm.CAConfig.SigningCAKey swarm.ExternalCA.CACert`},
		{bound{0, maxProfile, anything}, `swarm.SeccompOpts.Profile`},
		{bound{0, maxData, anything}, `swarm.SecretSpec.Data swarm.ConfigSpec.Data cluster.RestoreRequest.Key`},
	} {
		for _, field := range strings.Fields(group.fields) {
			all[field] = group.bound
		}
	}
	return all
}()

// totals are how much text there may be in all of what clients send, by its type.
var totals = map[reflect.Type]int{
	reflect.TypeFor[swarm.ServiceSpec]():      maxSpec,
	reflect.TypeFor[cluster.PlanRequest]():    maxPlan,
	reflect.TypeFor[swarm.NodeSpec]():         maxSettings,
	reflect.TypeFor[swarm.Spec]():             maxSettings + 2*maxPEM,
	reflect.TypeFor[swarm.SecretSpec]():       maxSettings,
	reflect.TypeFor[swarm.ConfigSpec]():       maxSettings,
	reflect.TypeFor[swarm.InitRequest]():      2*maxSettings + 2*maxPEM,
	reflect.TypeFor[swarm.JoinRequest]():      maxSettings,
	reflect.TypeFor[swarm.UnlockRequest]():    maxSettings,
	reflect.TypeFor[cluster.BackupRequest]():  maxSettings,
	reflect.TypeFor[cluster.RestoreRequest](): maxSettings,
	reflect.TypeFor[cluster.ConsoleRequest](): maxSettings,
	reflect.TypeFor[cluster.ConsoleCode]():    maxSettings,
	reflect.TypeFor[cluster.TokenRequest]():   maxSettings,
	reflect.TypeFor[networkAsked]():           maxSettings,
	reflect.TypeFor[network.CreateRequest]():  maxSettings,
}

// checkBounds refuses what is beyond the bounds in what v points to. Its errors never
// quote a value, which may be secret.
func checkBounds(v any) error {
	value := reflect.ValueOf(v).Elem()
	total, ok := totals[value.Type()]
	if !ok {
		return fmt.Errorf("check the bounds of a %s: it has none", value.Type())
	}
	var s sizer
	if err := s.look(value, "", bound{}); err != nil {
		return err
	}
	if s.size > total {
		return fail(errBeyond, "all texts of it together have %d bytes, more than %d: what is long belongs into a config or the image", s.size, total)
	}
	return nil
}

// errBeyond is the class of what checkBounds refuses.
var errBeyond = fmt.Errorf("%w: too large", cluster.ErrInvalid)

// sizer adds up what a value has.
type sizer struct{ size int }

// look checks a value, which is in a field of that bound.
func (s *sizer) look(v reflect.Value, where string, b bound) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return s.look(v.Elem(), where, b)
	case reflect.Struct:
		return s.fields(v, where)
	case reflect.String:
		return s.text(v.String(), where, b.length, b.within)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if v.Len() > b.length {
				return fail(errBeyond, "%s: has %d bytes, more than %d: make it shorter", where, v.Len(), b.length)
			}
			return nil
		}
		if err := s.elements(v.Len(), where, b); err != nil {
			return err
		}
		for i := range v.Len() {
			if err := s.look(v.Index(i), fmt.Sprintf("%s[%d]", where, i), b); err != nil {
				return err
			}
		}
	case reflect.Map:
		if err := s.elements(v.Len(), where, b); err != nil {
			return err
		}
		for each := v.MapRange(); each.Next(); {
			if err := s.text(each.Key().String(), "a name in "+where, maxLine, printable); err != nil {
				return err
			}
			if err := s.look(each.Value(), fmt.Sprintf("%s[%.40q]", where, each.Key().String()), b); err != nil {
				return err
			}
		}
	case reflect.Interface, reflect.Func, reflect.Chan:
		if !v.IsNil() {
			return unsupported(where, "leave it out")
		}
	}
	return nil
}

func (s *sizer) fields(v reflect.Value, where string) error {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		name := strings.TrimPrefix(where+"."+field.Name, ".")
		if field.Anonymous {
			name = where
		}
		b, bounded := bounds[v.Type().String()+"."+field.Name]
		if !bounded && sized(field.Type) && !v.Field(i).IsZero() {
			return unsupported(name, "leave it out")
		}
		if err := s.look(v.Field(i), name, b); err != nil {
			return err
		}
	}
	return nil
}

// sized tells whether values of a type can have any size by themselves: those of
// structs have it by their fields.
func sized(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String, reflect.Slice, reflect.Map, reflect.Interface, reflect.Func, reflect.Chan:
		return true
	}
	return false
}

func (s *sizer) elements(n int, where string, b bound) error {
	if s.size += n * elementSize; n > b.count {
		return fail(errBeyond, "%s: has %d elements, more than %d: leave some out", where, n, b.count)
	}
	return nil
}

func (s *sizer) text(text, where string, most int, within charset) error {
	if s.size += len(text); len(text) > most {
		return fail(errBeyond, "%s: has %d bytes, more than %d: make it shorter, what is long belongs into a config or the image", where, len(text), most)
	}
	if at := strings.IndexFunc(text, within.refuses); at >= 0 {
		return fail(errBeyond, "%s: has %s in it, at byte %d: leave it out", where, within.name, at)
	}
	return nil
}
