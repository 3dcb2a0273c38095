package store

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// A time that was added to an object and isn't among its times could be one that no
// snapshot can hold.
func TestTimes_AreAll(t *testing.T) {
	for k := kindCluster; k <= kindConfig; k++ {
		object, err := blank(k, "1.1")
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		setTimes(reflect.ValueOf(object).Elem(), &want)
		got := times(object)
		for _, at := range want {
			if !slices.Contains(got, at) && k != kindTask {
				t.Errorf("%T: its time number %d isn't among its times", object, at.Unix())
			}
		}
	}
}

// setTimes sets all times in a struct, each to another one.
func setTimes(v reflect.Value, set *[]time.Time) {
	for i := range v.NumField() {
		switch field := v.Field(i); {
		case field.Type() == reflect.TypeFor[time.Time]():
			*set = append(*set, time.Unix(int64(len(*set)), 0))
			field.Set(reflect.ValueOf((*set)[len(*set)-1]))
		case field.Kind() == reflect.Struct:
			setTimes(field, set)
		}
	}
}
