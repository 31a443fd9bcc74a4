// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestEveryVersionIsRead: a node reads what any older version wrote into the log, and writes it as its own. The files
// of a version are made once (TestEncodingV1 for the first) and never again.
func TestEveryVersionIsRead(t *testing.T) {
	for v := 1; v <= FormatVersion; v++ {
		dir := filepath.Join("testdata", "encoding", fmt.Sprintf("v%d", v))
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatalf("version %d has no golden files: %v", v, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if err := readsBack(strings.TrimSuffix(f.Name(), ".json"), b); err != nil {
				t.Errorf("%s of version %d: %v", f.Name(), v, err)
			}
		}
	}
	for _, alien := range []string{`{"format":0}`, fmt.Sprintf(`{"format":%d}`, FormatVersion+1), `{}`, `[]`, ``} {
		if s, err := DecodeState([]byte(alien)); err == nil {
			t.Errorf("a snapshot of another format was read: %s as %+v", alien, s)
		}
	}
}

func readsBack(name string, b []byte) error {
	var again []byte
	switch name {
	case "state":
		s, err := DecodeState(b)
		if err != nil {
			return err
		}
		again = s.Encode()
	case "member_change":
		c, err := DecodeMemberChange(b)
		if err != nil {
			return err
		}
		again = c.Encode()
	default:
		c, err := DecodeCommand(b)
		if err != nil {
			return err
		}
		set := 0
		for v, i := reflect.ValueOf(c), 0; i < v.NumField(); i++ {
			if !v.Field(i).IsNil() {
				set++
			}
		}
		if again = c.Encode(); set != 1 {
			return fmt.Errorf("%d commands in one entry", set)
		}
	}
	// Every field of the file is still there; new ones may have come.
	var was, is any
	if err := json.Unmarshal(b, &was); err != nil {
		return err
	}
	if err := json.Unmarshal(again, &is); err != nil {
		return err
	}
	return keeps(was, is, name)
}

func keeps(was, is any, at string) error {
	switch w := was.(type) {
	case map[string]any:
		m, _ := is.(map[string]any)
		for k, v := range w {
			if _, ok := m[k]; !ok {
				return fmt.Errorf("%s.%s is lost", at, k)
			}
			if err := keeps(v, m[k], at+"."+k); err != nil {
				return err
			}
		}
	case []any:
		s, _ := is.([]any)
		if len(s) != len(w) {
			return fmt.Errorf("%s had %d elements, has %d", at, len(w), len(s))
		}
		for i := range w {
			if err := keeps(w[i], s[i], at); err != nil {
				return err
			}
		}
	default:
		if was != is {
			return fmt.Errorf("%s was %v, is %v", at, was, is)
		}
	}
	return nil
}

// TestSamplesAreComplete: the golden files hold every command, with every field set: a field that no file holds could
// change its name unseen.
func TestSamplesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for name, s := range samples() {
		v := reflect.ValueOf(s)
		if c, ok := s.(Command); ok {
			for i := range v.NumField() {
				if f := v.Field(i); !f.IsNil() {
					tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
					if tag != name {
						t.Errorf("sample %s holds %s", name, tag)
					}
					seen[tag] = true
				}
			}
			if back, err := DecodeCommand(c.Encode()); err != nil || !bytes.Equal(back.Encode(), c.Encode()) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, path := range unset(v, name) {
			if !strings.HasPrefix(path, name+".") || v.Type() != reflect.TypeFor[Command]() || strings.Count(path, ".") > 1 {
				t.Errorf("%s is not set in the sample", path)
			}
		}
	}
	for i, typ := 0, reflect.TypeFor[Command](); i < typ.NumField(); i++ {
		if tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); !seen[tag] {
			t.Errorf("no sample of %s", tag)
		}
	}
}

func unset(v reflect.Value, at string) []string {
	if v.IsZero() {
		return []string{at}
	}
	var out []string
	switch v.Kind() {
	case reflect.Pointer:
		return unset(v.Elem(), at)
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, unset(v.Field(i), at+"."+v.Type().Field(i).Name)...)
		}
	case reflect.Slice:
		if v.Len() == 0 {
			return []string{at}
		}
		return unset(v.Index(0), at)
	default:
	}
	return out
}
