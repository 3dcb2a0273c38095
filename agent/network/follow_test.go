package network

import (
	"reflect"
	"testing"
)

// What narrow doesn't compare would be taken for the same.
func TestNarrow_KnowsAllFields(t *testing.T) {
	for kind, fields := range map[reflect.Type]int{reflect.TypeFor[Endpoint](): 3, reflect.TypeFor[Service](): 3, reflect.TypeFor[Port](): 6} {
		if n := kind.NumField(); n != fields {
			t.Errorf("%s has %d fields, and %d are compared", kind, n, fields)
		}
	}
}
