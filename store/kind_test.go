package store

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// A number is in logs and snapshots for ever, and what has no word can't be told of.
func TestKinds_HaveTheirNumbersAndWords(t *testing.T) {
	words := map[string]bool{}
	for i, k := range kinds {
		number, word := described(k)
		if number != kindNumber(i+1) {
			t.Errorf("%s %d is number %d of the kinds", word, number, i+1)
		}
		if word == "" || words[word] {
			t.Errorf("the word for kind %d is %q", number, word)
		}
		words[word] = true
		object, err := k.blankOf("1.1")
		if err != nil {
			t.Fatal(err)
		}
		if key := k.keyOf(object); key != "1.1" {
			t.Errorf("a blank %s has the key %q instead of %q", word, key, "1.1")
		}
	}
}

// described reads what a description says of itself.
func described(k kind) (kindNumber, string) {
	v := reflect.ValueOf(k).Elem()
	return kindNumber(v.FieldByName("number").Uint()), v.FieldByName("word").String()
}

// A time that was added to an object and isn't among its times could be one that no
// snapshot can hold.
func TestTimes_AreAll(t *testing.T) {
	for _, k := range kinds {
		object, err := k.blankOf("1.1")
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		setTimes(reflect.ValueOf(object).Elem(), &want)
		got := k.timesOf(object)
		for _, at := range want {
			if !slices.Contains(got, at) && k != kind(tasks) {
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
